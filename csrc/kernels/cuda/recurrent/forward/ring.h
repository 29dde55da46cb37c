// Gate inputs on their way: kRingSlots beats of the warp's patch in shared memory, [gate][patch] each, filled
// by copies that run beside the lanes. What is saved of the gates leaves from the slot whose inputs it was
// made of.
//
// A slot belongs to its warp, and lane l copies in words l, l+32, .., which are also those that it copies
// out, so between both there is no barrier but those of the warp.
//
// Where rows of H numbers do not begin on 16 bytes, the words around a gate's row are copied, one more than
// there are of it, and a number lies where its address modulo 16 says.
#pragma once
#include <device/copy.h>
#include <device/warp.h>

#include "../sequence.h"
#include "share.h"

namespace fusegen::cuda {

// The first step's row `b` of a direction in a tensor [T,B,D,row] or, `apart`, [D,T,B,row]: its number.
FUSEGEN_DEVICE int64_t first_row(const ForwardPass& pass, int direction, int b, bool apart) {
  return apart ? direction * pass.T * pass.B + b : static_cast<int64_t>(b) * pass.D + direction;
}

template <class C, class T, int NT>
class GateRing {
public:
  using Rows = WarpRows<C::kGates>;
  static constexpr int kGates = C::kGates, kSegments = C::kSavesGates ? 4 : kGates, kAll = Rows::kPairs * NT,
                       kRows = 8 * NT, kNumber = static_cast<int>(sizeof(T)), kMostWords = 2 * kAll * kNumber;
  static_assert(kMostWords <= 32);

  FUSEGEN_DEVICE GateRing(const Arguments<ForwardPass>& a, const Self& me, const Share& share)
      : a_(a),
        share_(share),
        gate_bytes_(a.pass.H * kNumber),
        whole_(gate_bytes_ % 16 == 0),
        fetches_(share.finishes && (!whole_ || share.word_unit < a.pass.H)),
        fetch_t_(me.direction == 1 ? static_cast<int>(a.pass.T) - 1 : 0),
        fetch_b_(me.group * a.geometry.slices * kRows + share.word_row),
        forth_(me.direction == 1 ? -1 : 1) {
    const ForwardPass& pass = a.pass;
    const Patch patch{Rows::kPairs, share.count};
    const int row = patch.units() * kNumber, row_in_slot = whole_ ? row : row + 16,
              gate = patch.rows() * row_in_slot, first_b = me.group * a.geometry.slices * kRows;
    // The word's row and place in its row, within the patch.
    const int word_row = share.word * 16 / row, word_at = share.word * 16 % row;
    const int warp = a.geometry.shared.ring + device::warp() * kSegments * gate;
    fetch_to_ = share.memory + (warp + share.part * gate + word_row * row_in_slot + word_at);
    fetch_to_ = device::in_register(fetch_to_);
    fetch_step_ = share.parts * gate;
    row_begins_ = word_at == 0;
    numbers_ =
        share.memory + warp + (whole_ ? share.place * kNumber : share.place * kNumber / row * row_in_slot);

    const auto* gx = static_cast<const unsigned char*>(pass.gx);
    const int64_t word = share.part * static_cast<int64_t>(gate_bytes_) + share.word_unit * kNumber;
    from_ = gx + first_row(pass, me.direction, fetch_b_, false) * kGates * gate_bytes_ + word;
    gx_end_ = gx + pass.T * pass.B * pass.D * kGates * gate_bytes_;
    gx_row_ = static_cast<uint32_t>(pass.D * kGates * gate_bytes_);
    gx_low_ = static_cast<uint32_t>(reinterpret_cast<uintptr_t>(gx)) +
              static_cast<uint32_t>(((first_b + share.row) * pass.D + me.direction) * kGates * gate_bytes_ +
                                    (share.unit - patch.unit(device::lane(), 0)) * kNumber);
    saved_ = static_cast<unsigned char*>(pass.gates) +
             first_row(pass, me.direction, fetch_b_, true) * 4 * gate_bytes_ + word;
  }

  // Whether words of 16 bytes hold whole rows, in all tensors of H numbers.
  FUSEGEN_DEVICE bool whole() const { return whole_; }

  // Asks for the inputs of the first beats.
  FUSEGEN_DEVICE void begin() {
    slot_ = a_.geometry.shared.ring_slot;
#pragma unroll 1
    for (int ahead = 1; ahead < kRingSlots; ++ahead) {
      fetch();
      go_on();
    }
  }

  // Asks for the inputs of the next beat, and closes the lane's group of copies.
  FUSEGEN_DEVICE void fetch() {
    const device::Shared to = fetch_to_ + slot_before(slot_);
    const unsigned char* const from = a_.gx.at(from_, fetch_t_, fetch_slice_);
    if (fetches_ && static_cast<uint32_t>(fetch_t_) < static_cast<uint32_t>(a_.pass.T) &&
        fetch_b_ < a_.pass.B) {
      if (whole_) {
#pragma unroll
        for (int i = 0; i < kMostIn; ++i)
          if (share_.part + i * share_.parts < kGates)
            device::copy16_async(to + 512 * i, from + i * share_.parts * gate_bytes_);
      } else {
        fetch_around(to, from);
      }
    }
    device::end_copy_group();
    fetch_b_ += kRows;
    if (++fetch_slice_ == a_.geometry.slices) {
      fetch_b_ -= a_.geometry.slices * kRows;
      fetch_slice_ = 0;
      fetch_t_ += forth_;
    }
  }

  // The inputs of the lane's pairs, when their copies are there; `t`: the step's time.
  template <int kCount>
  FUSEGEN_DEVICE void read(float (&x)[kAll][kGates], int slice, int t) const {
    constexpr Patch patch{Rows::kPairs, kCount};
    if (whole_) {
      for_each_number<kCount, kGates>(
          [&](int i, int gate, device::Shared at) { x[i][gate] = device::widen(device::load<T>(at)); });
      return;
    }
    constexpr int row = patch.units() * kNumber + 16;
    const uint32_t low = gx_low_ + (static_cast<uint32_t>(t) * static_cast<uint32_t>(a_.pass.B) +
                                    static_cast<uint32_t>(slice * kRows)) *
                                       gx_row_;
#pragma unroll
    for (int i = 0; i < kCount; ++i)
#pragma unroll
      for (int gate = 0; gate < kGates; ++gate) {
        const int rows = patch.row(0, i), unit = patch.unit(device::lane(), i);
        const uint32_t skew = (low + static_cast<uint32_t>(rows * patch.row_step()) * gx_row_ +
                               static_cast<uint32_t>(gate * gate_bytes_)) &
                              15u;
        const int at = slot_ + (gate * patch.rows() + rows) * row + static_cast<int>(skew) + unit * kNumber;
        x[i][gate] = device::widen(device::load<T>(numbers_ + at));
      }
  }

  // Hands out what is saved of the gates; `there`: the lane's word has a row that is at such a step.
  template <int kCount>
  FUSEGEN_DEVICE void save(const Made (&made)[kAll], bool there, int slice, int t) const {
    for_each_number<kCount, 4>([&](int i, int gate, device::Shared at) {
      device::store(at, device::narrow<T>(made[i].saved[gate]));
    });
    device::sync_warp();
    const device::Shared words = fetch_to_ + slot_;
    unsigned char* const to = a_.gates.at(saved_, t, slice);
#pragma unroll
    for (int i = 0; i < kMostSaved; ++i)
      if (there && share_.part + i * share_.parts < 4)
        device::store16(to + i * share_.parts * gate_bytes_, device::load16(words + 512 * i));
  }

  FUSEGEN_DEVICE void go_on() {
    const int size = a_.geometry.shared.ring_slot;
    slot_ = slot_ == (kRingSlots - 1) * size ? 0 : slot_ + size;
  }

private:
  static constexpr int kMostIn = ceil_div(kGates * kMostWords, 32), kMostSaved = ceil_div(4 * kMostWords, 32);

  // Three beats on are as far as one beat back.
  FUSEGEN_DEVICE int slot_before(int slot) const {
    const int size = a_.geometry.shared.ring_slot;
    return slot == 0 ? (kRingSlots - 1) * size : slot - size;
  }
  // Words around the lane's, where rows begin anywhere; none past the tensor's end.
  FUSEGEN_DEVICE void fetch_around(device::Shared to, const unsigned char* first) const {
    const auto copy = [&](device::Shared shared, const unsigned char* from) {
      const int64_t left = gx_end_ - from;
      device::copy_some_of_16_async(shared, left > 0 ? from : a_.pass.gx,
                                    left >= 16 ? 16
                                    : left > 0 ? static_cast<int>(left)
                                               : 0);
    };
    const int row = Patch{Rows::kPairs, share_.count}.units() * kNumber;
#pragma unroll
    for (int i = 0; i < kMostIn; ++i) {
      if (share_.part + i * share_.parts >= kGates) break;
      const unsigned char* from = first + i * share_.parts * gate_bytes_;
      from -= reinterpret_cast<uintptr_t>(from) % 16;
      copy(to + i * fetch_step_, from);
      if (row_begins_) copy(to + i * fetch_step_ + row, from + row);
    }
  }

  // each(i, segment, number) of the lane's pairs in the slot, where rows are whole words.
  template <int kCount, int kOf, class Each>
  FUSEGEN_DEVICE void for_each_number(const Each& each) const {
    constexpr Patch patch{Rows::kPairs, kCount};
#pragma unroll
    for (int i = 0; i < kCount; ++i)
#pragma unroll
      for (int segment = 0; segment < kOf; ++segment)
        each(i, segment,
             numbers_ + (slot_ + (segment * patch.rows() * patch.units() + patch.row(0, i) * patch.units() +
                                  patch.unit(0, i)) *
                                     kNumber));
  }

  const Arguments<ForwardPass>& a_;
  const Share& share_;
  const int gate_bytes_;
  const bool whole_;
  // Of the next beat to ask for.
  const bool fetches_;
  int fetch_t_, fetch_b_, fetch_slice_ = 0;
  const int forth_;
  device::Shared fetch_to_;
  int fetch_step_;
  bool row_begins_;
  const unsigned char* from_;
  // Of the beat that is worked on.
  int slot_ = 0;
  device::Shared numbers_;
  unsigned char* saved_;
  // Where rows are not whole words.
  const unsigned char* gx_end_;
  uint32_t gx_row_,
      gx_low_;  // bytes from row to row; the lower half of the address of pair 0's row, at t = 0
};

}  // namespace fusegen::cuda
