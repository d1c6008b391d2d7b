# table.py - what was found, as text.

TITLES = {
    "select-floor": "select, 10 keys, against a function that does nothing",
    "select-pool-size": "select, 8 clients, pools of several sizes",
    "select-blocked": "select, 8 clients, keys that cannot serve",
    "select-quotas": "a selection where quotas keep most keys out, 8 clients",
    "select-providers": "select, 8 clients, many providers at once",
    "select-redis": "select, against Redis",
    "contention": "select, one key",
    "record-floor": "record, against one WAL record of the same length",
    "cycle": "select and record",
    "many-providers": "select, 8 clients, calls spread over all providers",
    "many-memory": "memory of a session, many providers",
    "memory": "memory of a session",
    "first-call": "first selection of a new connection",
    "latency": "latency, calls back to back",
    "wal": "WAL",
    "instructions": "instructions of the processor",
}
SIGNS = {"at least": ">=", "at most": "<="}
LAYOUT = "{:<76} {:>9} {:>9} {:>9}  {:<13} {:<10} {:<8} {}"


def number(value):
    if value == int(value) or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"


# Whether a line is within its target; None if it has none.
def met(line):
    if not line.get("target"):
        return None
    kind, goal = line["target"]
    return line["median"] >= goal if kind == "at least" else line["median"] <= goal


def row(line):
    if "median" not in line:
        return f"  {line['what']}"
    target = f"{SIGNS[line['target'][0]]} {number(line['target'][1])}" if line["target"] else ""
    verdict = {True: "met", False: "not met", None: ""}[met(line)]
    unit = "" if line["unit"] == "ratio" else line["unit"]
    return LAYOUT.format("  " + line["what"], number(line["median"]), number(line["low"]), number(line["high"]), unit, target, verdict,
                         line["note"]).rstrip()


def table(lines):
    text = [lines[0]["about"], "A ratio is that of throughputs, keypool's first; at the end of its line, the two in absolute figures. Of latencies it is the first over the second, keypool's.", "",
            LAYOUT.format("", "median", "min", "max", "", "target", "", "").rstrip()]
    case = None
    for line in lines[1:]:
        if line["case"] != case:
            case = line["case"]
            text += ["", TITLES[case]]
        text.append(row(line))
    judged = [met(line) for line in lines[1:] if met(line) is not None]
    text += ["", f"{judged.count(True)} of {len(judged)} targets met"]
    return "\n".join(text) + "\n"
