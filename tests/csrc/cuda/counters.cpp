#include "counters.h"

#include <algorithm>
#include <deque>

namespace hstl::shim {

Counts counts;

namespace {

// The accesses of the lanes at one place.
struct Row {
  uint32_t lanes;
  size_t offsets[kWarp];
};
struct Place {
  Op op;
  int bytes;
  Where where;
  unsigned first;        // the number of the first row
  unsigned next[kWarp];  // the number of the row that a lane's next access belongs to
  std::deque<Row> rows;
};
constexpr size_t kMostRows = 64;

std::vector<Place> places[kMostThreads / kWarp];

Place& place_of(Op op, int bytes, Where where) {
  std::vector<Place>& all = places[block.current->warp];
  for (Place& p : all)
    if (p.where.line == where.line && p.where.file == where.file && p.op == op && p.bytes == bytes) return p;
  all.push_back({op, bytes, where, 0, {}, {}});
  return all.back();
}

void count_row(const Place& place, const Row& row) {
  size_t offsets[kWarp];
  int lanes = 0;
  for (int lane = 0; lane < kWarp; ++lane)
    if (row.lanes >> lane & 1) offsets[lanes++] = row.offsets[lane];
  note_accesses(place.op, offsets, lanes, place.bytes, place.where);
}

// Of lanes that share one round if their words lie in different banks: the words of the bank that has most.
int rounds_of(const size_t* offsets, int lanes, int bytes) {
  std::vector<size_t> words;
  for (int i = 0; i < lanes; ++i)
    for (int j = 0; j < std::max(bytes / 4, 1); ++j) words.push_back(offsets[i] / 4 + size_t(j));
  std::sort(words.begin(), words.end());
  words.erase(std::unique(words.begin(), words.end()), words.end());
  int in_bank[32] = {};
  for (size_t word : words) ++in_bank[word % 32];
  return *std::max_element(in_bank, in_bank + 32);
}

}  // namespace

std::map<std::string, Counts>& all_counts() {
  static std::map<std::string, Counts> all;
  return all;
}

void begin_counts() {
  ++counts.blocks;
  for (auto& warp : places) warp.clear();
}

void end_counts() {
  for (auto& warp : places)
    for (Place& place : warp)
      for (const Row& row : place.rows) count_row(place, row);
}

void add_counts(const char* kernel) {
  Counts& sum = all_counts()[kernel];
  sum.launches += 1;
  sum.blocks += counts.blocks;
  for (int i = 0; i < kOps; ++i) {
    sum.instructions[i] += counts.instructions[i];
    sum.rounds[i] += counts.rounds[i];
    sum.fewest[i] += counts.fewest[i];
  }
  for (auto& [place, rounds] : counts.conflicts) sum.conflicts[place] += rounds;
  counts = Counts{};
}

void note_lane_access(Op op, size_t offset, int bytes, Where where) {
  count(op);
  if (!options.conflicts) return;
  Place& place = place_of(op, bytes, where);
  int lane = block.current->lane;
  unsigned number = std::max(place.next[lane], place.first);
  place.next[lane] = number + 1;
  while (place.rows.size() <= number - place.first) place.rows.push_back({});
  Row& row = place.rows[number - place.first];
  row.lanes |= 1u << lane;
  row.offsets[lane] = offset;
  while (!place.rows.empty() &&
         (place.rows.front().lanes == block.warp[block.current->warp].lanes || place.rows.size() > kMostRows)) {
    count_row(place, place.rows.front());
    place.rows.pop_front();
    ++place.first;
  }
}

void note_accesses(Op op, const size_t* offsets, int lanes, int bytes, Where where) {
  if (!options.conflicts) return;
  int together = std::min(kWarp, 128 / bytes), groups = (lanes + together - 1) / together, rounds = 0;
  for (int first = 0; first < lanes; first += together)
    rounds += rounds_of(offsets + first, std::min(together, lanes - first), bytes);
  counts.rounds[int(op)] += uint64_t(rounds);
  counts.fewest[int(op)] += uint64_t(groups);
  if (rounds > groups)
    counts.conflicts[std::string(where.file) + ":" + std::to_string(where.line)] += uint64_t(rounds - groups);
}

}  // namespace hstl::shim
