// A lane's share of the work: its pairs and its word of the patch, found once per kernel.
#pragma once
#include <device/shared.h>

#include "../resident.h"
#include "patch.h"

namespace fusegen::cuda {

struct Share {
  device::Shared memory;  // of the block
  int unit_groups;        // of warps
  int thread;

  int count;      // pairs of the lane that this warp finishes
  bool finishes;  // whether it does
  int first;      // of them, among those that the lane has sums of
  int unit, row;  // of pair 0: in the layer, in a slice
  int place;      // of pair 0: numbers from the start of the patch

  int words, word, part, parts;  // word `word` of the patch is that of `parts` lanes
  int word_unit, word_row;       // of its first number; in the layer, in a slice
};

// What is formed once for all beats, and held where a lane has a register for it: LSTM's products of split
// numbers leave none.
template <class C, class Format, class V>
FUSEGEN_DEVICE V held(V v) {
  return kSplit<Format> && C::kGates == 4 ? v : device::in_register(v);
}

template <class T, class Rows, int NT>
FUSEGEN_DEVICE Share share_of(const Geometry& geometry, const Self& me) {
  constexpr int kAll = Rows::kPairs * NT, kNumbers = 16 / static_cast<int>(sizeof(T));
  const int lane = device::lane();
  Share s;
  s.memory = device::shared_start();
  s.unit_groups = device::kWarps / geometry.k_splits;
  s.thread = device::in_register(device::thread());
  const Patch patch{Rows::kPairs, pairs_finished(kAll, geometry.k_splits)};
  s.count = patch.count;
  s.first = me.k_split * s.count;
  s.finishes = s.first < kAll;
  const int first_unit = me.first_unit + patch.first_unit(s.first), first_row = patch.first_row(s.first);
  s.unit = first_unit + patch.unit(lane, 0);
  s.row = first_row + patch.row_step() * patch.row(lane, 0);
  s.place = patch.row(lane, 0) * patch.units() + patch.unit(lane, 0);

  s.words = patch.words(static_cast<int>(sizeof(T)));
  s.word = lane % s.words;
  s.part = lane / s.words;
  s.parts = 32 / s.words;
  const int of_row = patch.units() / kNumbers;
  s.word_unit = first_unit + s.word % of_row * kNumbers;
  s.word_row = first_row + patch.row_step() * (s.word / of_row);
  return s;
}

}  // namespace fusegen::cuda
