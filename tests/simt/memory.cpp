#include "memory.h"

#include <algorithm>
#include <cstring>
#include <unordered_map>

#include "emulator.h"

namespace simt::memory {
namespace {

struct LaneState {
  Seen seen;
  uint32_t stretch = 0;  // of its next access
};

// What has been accessed, by lines of 16 bytes.
constexpr uintptr_t kLine = 16, kPage = 4096;
struct Access {
  uint16_t bytes, kind;  // a bit a byte of the line
  int lane;
  uint32_t stretch;
  const void* at;  // in the code
  int next;
};
struct Line {
  int reads = -1, writes = -1;
  int read_count = 0, most = 16;  // beyond which reads that happened before are sought out
};
struct Page {
  uint64_t launch = 0;
  Line lines[kPage / kLine];
};

struct Model {
  uint64_t launch = 0;
  int threads = 1, first_block = 0;
  std::vector<LaneState> lanes;
  std::vector<Access> accesses;
  int unused = -1;
  std::unordered_map<uintptr_t, std::unique_ptr<Page>> pages;
  struct {
    uintptr_t number = ~uintptr_t{0};
    Page* page = nullptr;
  } recent[256];
  std::unordered_map<const void*, Seen> words;  // what an acquiring load of a word acquires
  struct {
    Seen one, other, both;
  } joined;  // the last: all lanes of a block ask for the same
};
Model model;

LaneState& running() { return model.lanes[lane_number()]; }
int first_lane() { return model.first_block * model.threads; }

Line& line_of(uintptr_t line) {
  const uintptr_t number = line / (kPage / kLine);
  auto& recent = model.recent[number % 256];
  if (recent.number != number) {
    auto& page = model.pages[number];
    if (!page) page = std::make_unique<Page>();
    recent = {number, page.get()};
  }
  Page& page = *recent.page;
  if (page.launch != model.launch) {
    page = {};
    page.launch = model.launch;
  }
  return page.lines[line % (kPage / kLine)];
}

bool ordered(const Access& a, const Release& then, unsigned kind, const void* p) {
  if (a.kind & kPending) return false;
  if ((kind & kProxy) && (a.kind & kWrite) && !(a.kind & kProxy))
    return then.seen->fenced_in(in_shared_memory(p) ? Space::shared : Space::global).cover(a.lane, a.stretch);
  return a.lane == then.lane || then.seen->seen.cover(a.lane, a.stretch);
}

std::string told(unsigned kind, int lane, const void* at) {
  return std::string(kind & kPending ? "a copy under way that " : "") + (kind & kWrite ? "writes" : "reads") +
         (kind & kProxy ? " asynchronously" : "") + ", of lane " + std::to_string(lane % model.threads) +
         " of block " + std::to_string(lane / model.threads) + place_of(at);
}

// Fails where an access of the list meets the new one unordered; drops those that the new one stands for.
void meet(int& list, int* count, const Release& then, unsigned kind, unsigned bytes, const void* p,
          const void* at) {
  for (int* link = &list; *link >= 0;) {
    Access& a = model.accesses[*link];
    const unsigned common = a.bytes & bytes;
    const bool conflict = ((a.kind | kind) & kWrite) && !(a.kind & kind & kStrong);
    const bool before = common && ordered(a, then, kind, p);
    if (common && conflict && !before)
      fail("race at " + place_of_data(p) + ": " + told(kind, then.lane, at) + "; not ordered with what " +
           told(a.kind, a.lane, a.at));
    const bool as_good =
        (kind & kWrite || !(a.kind & kWrite)) && (a.kind & (kStrong | kProxy)) == (kind & (kStrong | kProxy));
    if (before && as_good) a.bytes &= static_cast<uint16_t>(~bytes);
    if (a.bytes) {
      link = &a.next;
      continue;
    }
    const int gone = *link;
    *link = a.next;
    model.accesses[gone].next = model.unused;
    model.unused = gone;
    if (count) --*count;
  }
}

void add(int& list, const Release& then, unsigned kind, unsigned bytes, uint32_t stretch, const void* at) {
  if (list >= 0) {
    Access& a = model.accesses[list];
    if (a.lane == then.lane && a.kind == kind && a.stretch == stretch) {
      a.bytes |= static_cast<uint16_t>(bytes);
      return;
    }
  }
  int place = model.unused;
  if (place >= 0) {
    model.unused = model.accesses[place].next;
  } else {
    place = static_cast<int>(model.accesses.size());
    model.accesses.emplace_back();
  }
  model.accesses[place] = {
      static_cast<uint16_t>(bytes), static_cast<uint16_t>(kind), then.lane, stretch, at, list};
  list = place;
}

template <class Each>
void for_each_line(const void* p, size_t bytes, const Each& each) {
  for (uintptr_t at = reinterpret_cast<uintptr_t>(p), end = at + bytes; at < end;) {
    const uintptr_t line = at / kLine, next = std::min(end, (line + 1) * kLine);
    each(line_of(line), static_cast<unsigned>(((1u << (next - at)) - 1) << at % kLine));
    at = next;
  }
}

void access_by(const Release& then, uint32_t stretch, const void* p, size_t bytes, unsigned kind,
               const void* at) {
  for_each_line(p, bytes, [&](Line& line, unsigned mask) {
    meet(line.writes, nullptr, then, kind, mask, p, at);
    if (kind & kWrite) {
      meet(line.reads, &line.read_count, then, kind, mask, p, at);
      add(line.writes, then, kind, mask, stretch, at);
      return;
    }
    if (line.read_count >= line.most) {
      meet(line.reads, &line.read_count, then, kind, mask, p, at);
      line.most = std::max(16, 2 * line.read_count);
    }
    const int before = line.reads;
    add(line.reads, then, kind, mask, stretch, at);
    line.read_count += line.reads != before;
  });
}

}  // namespace

// -- Clocks --

bool Bounds::cover(int lane, uint32_t stretch) const {
  const size_t block = static_cast<size_t>(lane / model.threads);
  if (block < blocks.size() && stretch < blocks[block]) return true;
  const auto at = std::lower_bound(lanes.begin(), lanes.end(), std::pair{lane, uint32_t{0}});
  return at != lanes.end() && at->first == lane && stretch < at->second;
}

void Bounds::join(const Bounds& other) {
  blocks.resize(std::max(blocks.size(), other.blocks.size()));
  for (size_t i = 0; i < other.blocks.size(); ++i) blocks[i] = std::max(blocks[i], other.blocks[i]);
  std::vector<std::pair<int, uint32_t>> both;
  both.reserve(lanes.size() + other.lanes.size());
  const auto take = [&](const std::pair<int, uint32_t>& l) {
    const size_t block = static_cast<size_t>(l.first / model.threads);
    if (block < blocks.size() && blocks[block] >= l.second) return;
    if (!both.empty() && both.back().first == l.first)
      both.back().second = std::max(both.back().second, l.second);
    else both.push_back(l);
  };
  for (auto a = lanes.cbegin(), b = other.lanes.cbegin(); a != lanes.end() || b != other.lanes.end();)
    take(b == other.lanes.end() || (a != lanes.end() && *a < *b) ? *a++ : *b++);
  lanes = std::move(both);
}

void Bounds::raise(int lane, uint32_t bound) {
  const auto at = std::lower_bound(lanes.begin(), lanes.end(), std::pair{lane, uint32_t{0}});
  if (at == lanes.end() || at->first != lane) lanes.insert(at, {lane, bound});
  else at->second = std::max(at->second, bound);
}

void Clock::join(const Clock& other) {
  seen.join(other.seen);
  for (Space s : {Space::shared, Space::global}) fenced_in(s).join(other.fenced_in(s));
}

void Gathered::add(const Release& release) {
  if (release.seen != last_) {
    clock_.join(*release.seen);
    last_ = release.seen;
  }
  own_.resize(model.lanes.size());
  uint32_t& bound = own_[release.lane - first_lane()];
  bound = std::max(bound, release.bound);
}

Seen Gathered::take() {
  Bounds own;
  for (size_t i = 0; i < own_.size(); ++i)
    if (own_[i]) own.lanes.emplace_back(first_lane() + static_cast<int>(i), own_[i]);
  clock_.seen.join(own);
  auto seen = std::make_shared<const Clock>(std::move(clock_));
  clock_ = {};
  own_.clear();
  last_ = nullptr;
  return seen;
}

// -- For the emulator --

void begin_launch(int threads) {
  ++model.launch;
  model.threads = threads;
  model.accesses.clear();
  model.words.clear();
  model.unused = -1;
  if (model.pages.size() > 20'000) {
    model.pages.clear();
    for (auto& r : model.recent) r = {};
  }
}

void begin_resident(int first_block, int blocks) {
  model.first_block = first_block;
  model.joined = {};
  model.lanes.assign(static_cast<size_t>(blocks) * model.threads, {std::make_shared<const Clock>(), 0});
}

void forget(const void* p, size_t bytes) {
  if (!memory_model()) return;
  for_each_line(p, bytes, [](Line& line, unsigned) { line = {}; });
}

void barrier_of_blocks(int first, int count) {
  Clock clock;
  const LaneState* lanes = model.lanes.data() + static_cast<size_t>(first) * model.threads;
  const Clock* last = nullptr;
  const int first_of_all = model.first_block + first;
  clock.seen.blocks.resize(first_of_all + count);
  for (int b = 0; b < count; ++b) {
    uint32_t bound = 0;
    for (int i = 0; i < model.threads; ++i) {
      const LaneState& l = lanes[b * model.threads + i];
      bound = std::max(bound, l.stretch + 1);
      if (l.seen.get() == last) continue;
      last = l.seen.get();
      clock.join(*last);
    }
    clock.seen.blocks[first_of_all + b] = std::max(clock.seen.blocks[first_of_all + b], bound);
  }
  clock.seen.join({});  // drops lanes that their blocks' bounds cover
  const auto seen = std::make_shared<const Clock>(std::move(clock));
  for (int b = 0; b < count; ++b)
    for (int i = 0; i < model.threads; ++i)
      model.lanes[(static_cast<size_t>(first) + b) * model.threads + i] = {
          seen, seen->seen.blocks[first_of_all + b]};
}

void barrier_of_lanes(int first, int count) {
  Gathered all;
  for (int i = first; i < first + count; ++i) {
    LaneState& l = model.lanes[i];
    all.add({l.seen, first_lane() + i, ++l.stretch});
  }
  const Seen seen = all.take();
  for (int i = first; i < first + count; ++i) model.lanes[i].seen = seen;
}

// -- For the wrappers --

Release release() {
  LaneState& l = running();
  return {l.seen, first_lane() + lane_number(), ++l.stretch};
}

void acquire(const Seen& seen) {
  Seen& mine = running().seen;
  if (!seen || mine == seen) return;
  auto& j = model.joined;
  if (j.one != mine || j.other != seen) {
    Clock both = *mine;
    both.join(*seen);
    j = {mine, seen, std::make_shared<const Clock>(std::move(both))};
  }
  mine = j.both;
}

void access(const void* p, size_t bytes, unsigned kind, const void* at) {
  if (!memory_model()) return;
  const LaneState& l = running();
  access_by({l.seen, first_lane() + lane_number(), 0}, l.stretch, p, bytes, kind, at);
}

void access_as(const Release& then, const void* p, size_t bytes, unsigned kind) {
  if (!memory_model()) return;
  access_by(then, then.bound - 1, p, bytes, kind, nullptr);
}

namespace {

void end_pending(int lane, const void* p, size_t bytes, unsigned kind) {
  for_each_line(p, bytes, [&](Line& line, unsigned mask) {
    for (int i = kind & kWrite ? line.writes : line.reads; i >= 0; i = model.accesses[i].next) {
      Access& a = model.accesses[i];
      if (a.lane == lane && a.kind == (kind | kPending) && (a.bytes & mask))
        a.kind = static_cast<uint16_t>(kind);
    }
  });
}

}  // namespace

void complete(const void* p, size_t bytes, unsigned kind) {
  if (!memory_model()) return;
  end_pending(first_lane() + lane_number(), p, bytes, kind);
  access(p, bytes, kind);
}

void complete_as(const Release& then, const void* p, size_t bytes, unsigned kind) {
  if (memory_model()) end_pending(then.lane, p, bytes, kind);
}

void released(const void* p, size_t bytes) {
  access(p, bytes, kWrite | kStrong);
  Gathered one;
  one.add(release());
  model.words[p] = one.take();
}

void stored(const void* p, size_t bytes) {
  access(p, bytes, kWrite | kStrong);
  model.words.erase(p);
}

void acquired(const void* p, size_t bytes) {
  access(p, bytes, kRead | kStrong);
  for (size_t i = 0; i < bytes; i += 4) {
    const auto at = model.words.find(static_cast<const unsigned char*>(p) + i);
    if (at != model.words.end()) acquire(at->second);
  }
}

void exchanged(const void* p, size_t bytes) {
  access(p, bytes, kWrite | kStrong);
  Gathered all;
  const auto at = model.words.find(p);
  if (at != model.words.end()) {
    all.add({at->second, first_lane() + lane_number(), 0});
    acquire(at->second);
  }
  all.add(release());
  model.words[p] = all.take();
}

void fence_proxy(Space space) {
  LaneState& l = running();
  Clock clock = *l.seen;
  clock.fenced_in(space).join(clock.seen);
  clock.fenced_in(space).raise(first_lane() + lane_number(), ++l.stretch);
  l.seen = std::make_shared<const Clock>(std::move(clock));
}

}  // namespace simt::memory
