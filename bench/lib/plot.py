# plot.py - what was found, as a picture: the median as a dot, a line from the smallest to the largest value, and a mark at the target.
import math
from xml.sax.saxutils import escape

from table import TITLES, met, number

WIDTH, LEFT, RIGHT, STEP = 1000, 480, 910, 20
STYLE = """
  svg { font: 12px system-ui, sans-serif }
  .page { fill: #fff } text { fill: #24292f } .small { fill: #57606a; font-size: 11px } .title { font-weight: 600 }
  .grid { stroke: #d0d7de } .span { stroke: #57606a; stroke-width: 2 } .goal { stroke: #8250df; stroke-width: 2 }
  .plain { fill: #57606a } .met { fill: #1a7f37 } .missed { fill: #cf222e }
  @media (prefers-color-scheme: dark) {
    .page { fill: #0d1117 } text { fill: #e6edf3 } .small { fill: #9198a1 }
    .grid { stroke: #30363d } .span { stroke: #9198a1 } .goal { stroke: #ab7df8 }
    .plain { fill: #9198a1 } .met { fill: #3fb950 } .missed { fill: #f85149 }
  }
"""


# One scale from the left to the right edge. What lies outside is drawn at the edge.
class Axis:
    def __init__(self, low, high, ticks, logarithmic=False):
        self.bend = math.log if logarithmic else float
        self.low, self.high, self.ticks = low, high, ticks

    def x(self, value):
        value = min(max(value, self.low), self.high)
        share = (self.bend(value) - self.bend(self.low)) / (self.bend(self.high) - self.bend(self.low))
        return round(LEFT + share * (RIGHT - LEFT), 1)


class Picture:
    def __init__(self):
        self.parts, self.y = [], 46

    def add(self, kind, text=None, **attributes):
        given = " ".join(f'{name.rstrip("_").replace("_", "-")}="{value}"' for name, value in attributes.items())
        self.parts.append(f"<{kind} {given}/>" if text is None else f"<{kind} {given}>{escape(text)}</{kind}>")

    def text(self, x, text, **attributes):
        self.add("text", text, x=x, y=self.y, **attributes)

    def panel(self, title, axis, lines):
        if not lines:
            return
        self.y += STEP + 8
        self.text(20, title, class_="title")
        for tick in axis.ticks:
            self.text(axis.x(tick), number(tick), class_="small", text_anchor="middle")
        top, bottom = self.y + 6, self.y + 6 + STEP * (len(lines) + len({line["case"] for line in lines}))
        for tick in axis.ticks:
            self.add("line", x1=axis.x(tick), x2=axis.x(tick), y1=top, y2=bottom, class_="grid")
        case = None
        for line in lines:
            if line["case"] != case:
                case = line["case"]
                self.y += STEP
                self.text(20, TITLES[case], class_="small")
            self.line(axis, line)
        self.y += 14

    def line(self, axis, line):
        self.y += STEP
        middle = self.y - 4
        scale = line["target"][1] if axis is SHARE else 1
        self.text(36, line["what"])
        self.add("line", x1=axis.x(line["low"] / scale), x2=axis.x(line["high"] / scale), y1=middle, y2=middle, class_="span")
        if line["target"]:
            goal = axis.x(line["target"][1] / scale)
            self.add("line", x1=goal, x2=goal, y1=middle - 7, y2=middle + 7, class_="goal")
        kind = {True: "met", False: "missed", None: "plain"}[met(line)]
        self.add("circle", cx=axis.x(line["median"] / scale), cy=middle, r=4.5, class_=kind)
        unit = "" if line["unit"] == "ratio" else f" {line['unit']}"
        self.text(WIDTH - 8, number(line["median"]) + unit, text_anchor="end", class_="small")

    def svg(self, about):
        height = self.y + 30
        head = (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}">\n'
                f"<title>keypool beside its baselines</title>\n<style>{STYLE}</style>\n"
                f'<rect class="page" width="{WIDTH}" height="{height}"/>\n'
                f'<text class="small" x="20" y="24">{escape(about)}</text>\n'
                f'<text class="small" x="20" y="42">{LEGEND}</text>\n')
        return head + "\n".join(self.parts) + "\n</svg>\n"


NEAR = Axis(0, 1.5, (0, 0.25, 0.5, 0.75, 1, 1.25, 1.5))
FAR = Axis(0.1, 10000, (0.1, 1, 10, 100, 1000, 10000), logarithmic=True)
SHARE = Axis(0, 1.5, (0, 0.25, 0.5, 0.75, 1, 1.25, 1.5))
LEGEND = ("Dot: median, green if the target (violet) is met, red if not. Line: smallest to largest value. "
          "What lies beyond a scale is drawn at its edge.")
PEERS = ("cycle", "select-redis")


def plot(lines):
    measured = [line for line in lines[1:] if "median" in line]
    ratios = [line for line in measured if line["unit"] == "ratio"]
    picture = Picture()
    picture.panel("Beside a floor, or itself: ratio", NEAR, [line for line in ratios if line["case"] not in PEERS])
    picture.panel("Beside others: ratio, logarithmic", FAR, [line for line in ratios if line["case"] in PEERS])
    picture.panel("Costs, as a share of what is allowed", SHARE,
                  [line for line in measured if line["unit"] != "ratio" and line["target"] and line["target"][1] > 0])
    return picture.svg(lines[0]["about"])
