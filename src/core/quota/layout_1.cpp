// layout_1.cpp - the state of a key in 0.1.0 as text.
#include "core/quota/layout_1.h"

#include <algorithm>

#include "core/quota/text_fields.h"

namespace keypool {

namespace {

constexpr uint32_t kTrackedGrants1 = 63;

void FormatRecorded(const RecordedUsage1 &recorded, FieldWriter *writer) {
  writer->Field("total_requests", recorded.total_requests);
  writer->Field("total_tokens", recorded.total_tokens);
  writer->Field("last_used_at", recorded.last_used_at);
  writer->Field("last_429_at", recorded.last_429_at);
  writer->Field("cooldown_until", recorded.cooldown_until);
  writer->Field("newest_second", recorded.newest_second);
  for (int i = 0; i < kSecondBuckets1; ++i)
    if (recorded.second[i] != 0) writer->Field("second", recorded.second[i], recorded.requests[i], recorded.tokens[i]);
  for (int i = 0; i < kMinuteBuckets1; ++i)
    if (recorded.minute[i] != 0)
      writer->Field("minute", recorded.minute[i], recorded.minute_requests[i], recorded.minute_tokens[i],
                    recorded.minute_rate_limited[i]);
}

bool HoldsReservations(const ReservedUsage1 &reserved, int bucket) {
  Second second = reserved.second[bucket];
  return second != 0 && second <= kLatestSecond && second % kSecondBuckets1 == static_cast<Second>(bucket);
}

// Nobody logged this half.
void FormatReserved(const ReservedUsage1 &reserved, FieldWriter *writer) {
  writer->Field("last_grant", std::clamp<TimeUs>(reserved.last_grant, 0, kLatestTime));
  writer->Field("newest_grant", std::min(reserved.newest_second, kLatestSecond));
  for (int i = 0; i < kSecondBuckets1; ++i)
    if (HoldsReservations(reserved, i))
      writer->Field("reserved", reserved.second[i], std::min<uint32_t>(reserved.granted[i], kTrackedGrants1),
                    reserved.open_count[i], reserved.open[i], std::max<int64_t>(reserved.tokens[i], 0));
}

}  // namespace

size_t FormatLayout1(const KeyState1 &state, char (&out)[kMaxLayout1Text]) noexcept {
  FieldWriter writer(out, sizeof(out));
  writer.Layout(state.layout);
  FormatRecorded(state.recorded, &writer);
  FormatReserved(state.reserved, &writer);
  return writer.Finish();
}

}  // namespace keypool
