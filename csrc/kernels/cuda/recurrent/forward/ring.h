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

#include "../boundaries.h"
#include "../step.h"
#include "share.h"

namespace fusegen::cuda {

// The first step's row `b` of a direction in a tensor [T,B,D,row] or, `apart`, [D,T,B,row]: its number.
FUSEGEN_DEVICE int64_t first_row(const ForwardPass& pass, int direction, int b, bool apart) {
  return apart ? direction * pass.T * pass.B + b : static_cast<int64_t>(b) * pass.D + direction;
}

// kAnew: sequences may start anew in the call.
template <class C, class T, class Format, int NT, bool kAnew>
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
        fetch_t_(me.direction == 1 ? static_cast<int>(a.pass.T) - 1 : 0),
        forth_(me.direction == 1 ? -1 : 1),
        direction_(me.direction),
        first_b_(me.group * a.geometry.slices * kRows) {
    const ForwardPass& pass = a.pass;
    const Patch patch{Rows::kPairs, share.count};
    const int row = patch.units() * kNumber, row_in_slot = whole_ ? row : row + 16,
              gate = patch.rows() * row_in_slot, b = first_b_ + share.word_row;
    // The word's row and place in its row, within the patch.
    const int word_row = share.word * 16 / row, word_at = share.word * 16 % row;
    const int warp = a.geometry.shared.ring + device::warp() * kSegments * gate;
    fetch_to_ = held<C, Format>(share.memory + (warp + share.part * gate + word_row * row_in_slot + word_at));
    numbers_ = held<C, Format>(
        share.memory + (warp + (whole_ ? share.place * kNumber : share.place * kNumber / row * row_in_slot)));
    if (share.finishes && (!whole_ || share.word_unit < pass.H) && b < pass.B)
      fetch_slices_ = ceil_div(pass.B - b, kRows);

    const auto* gx = static_cast<const unsigned char*>(pass.gx);
    const int64_t word = share.part * static_cast<int64_t>(gate_bytes_) + share.word_unit * kNumber;
    from_ = gx + first_row(pass, me.direction, b, false) * kGates * gate_bytes_ + word;
    saved_ = static_cast<unsigned char*>(pass.gates) +
             first_row(pass, me.direction, b, true) * 4 * gate_bytes_ + word;
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
    if (fetch_slice_ < fetch_slices_ && static_cast<uint32_t>(fetch_t_) < static_cast<uint32_t>(a_.pass.T)) {
      if (whole_) {
#pragma unroll
        for (int i = 0; i < kMostIn; ++i)
          if (share_.part + i * share_.parts < kGates)
            device::copy16_async(to + 512 * i, from + i * share_.parts * gate_bytes_);
      } else {
        fetch_around(to, from);
      }
    }
    if (starts_anew()) fetch_boundaries();
    device::end_copy_group();
    if (++fetch_slice_ == a_.geometry.slices) {
      fetch_slice_ = 0;
      fetch_t_ += forth_;
    }
  }

  // Whether sequences may start anew. Of kernels in which they may it is asked in each beat all the same: the
  // branch keeps what it guards out of the registers of all else, of which LSTM's split numbers leave none.
  FUSEGEN_DEVICE bool starts_anew() const { return kAnew && a_.geometry.shared.resets != 0; }
  // Which rows of a slice start anew behind the beat that is worked on: a bit each, the first the lowest.
  FUSEGEN_DEVICE uint32_t rows_anew(int slice) const {
    const int first = first_b_ + slice * kRows;
    return static_cast<uint32_t>(device::load<int>(boundaries(slot_) + first / 32 % 4 * 4)) >> first % 32;
  }

  // The inputs of the lane's pairs, when their copies are there; `t`: the step's time.
  template <int kCount>
  FUSEGEN_DEVICE void read(float (&x)[kAll][kGates], int slice, int t) const {
    constexpr Patch patch{Rows::kPairs, kCount};
    if (whole_) {
#pragma unroll
      for (int i = 0; i < kCount; ++i)
#pragma unroll
        for (int gate = 0; gate < kGates; ++gate)
          x[i][gate] = device::widen(device::load<T>(number<kCount>(i, gate)));
      return;
    }
    // The zero keeps what follows out of the registers of the steps that do not come here.
    const int zero = device::in_register(0);
    constexpr int row = patch.units() * kNumber + 16;
    const auto gx_row = static_cast<uint32_t>((a_.pass.D + zero) * kGates * gate_bytes_);
    // The lower half of the address of pair 0's row, of the warp's first unit.
    const uint32_t low =
        static_cast<uint32_t>(reinterpret_cast<uintptr_t>(a_.pass.gx)) +
        (static_cast<uint32_t>(t) * static_cast<uint32_t>(a_.pass.B) +
         static_cast<uint32_t>(first_b_ + slice * kRows + share_.row + zero)) *
            gx_row +
        static_cast<uint32_t>((direction_ + zero) * kGates * gate_bytes_ +
                              (share_.unit - patch.unit(device::lane(), 0) + zero) * kNumber);
#pragma unroll
    for (int i = 0; i < kCount; ++i)
#pragma unroll
      for (int gate = 0; gate < kGates; ++gate) {
        const int rows = patch.row(0, i), unit = patch.unit(device::lane(), i);
        const uint32_t skew = (low + static_cast<uint32_t>(rows * patch.row_step()) * gx_row +
                               static_cast<uint32_t>(gate * gate_bytes_)) &
                              15u;
        const int at = slot_ + (gate * patch.rows() + rows) * row + static_cast<int>(skew) + unit * kNumber;
        x[i][gate] = device::widen(device::load<T>(numbers_ + at));
      }
  }

  // Leaves in the slot, whose inputs all lanes of the warp have read, what is saved of pair i's gates.
  template <int kCount, bool whole>
  FUSEGEN_DEVICE void put(const Made& made, int i) const {
#pragma unroll
    for (int gate = 0; gate < 4; ++gate)
      device::store(whole ? number<kCount>(i, gate) : left<kCount>() + left_at<kCount>(i, gate),
                    device::narrow<T>(made.saved[gate]));
  }
  // Where put() leaves it if rows do not begin on whole words: a row of lanes for each gate and pair,
  // [4][kCount][32].
  template <int kCount>
  FUSEGEN_DEVICE device::Shared left() const {
    constexpr Patch patch{Rows::kPairs, kCount};
    constexpr int gate_in_slot = patch.rows() * (patch.units() * kNumber + 16);
    return share_.memory + (a_.geometry.shared.ring + slot_ +
                            share_.thread / 32 * (kSegments * gate_in_slot) + device::lane() * kNumber);
  }
  template <int kCount>
  static FUSEGEN_DEVICE int left_at(int i, int gate) {
    return (gate * kCount + i) * 32 * kNumber;
  }

  // Hands out what put() has left of whole words; `there`: the lane's word has a row that is at such a step.
  FUSEGEN_DEVICE void save(bool there, int slice, int t) const {
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
  // The warp's copy behind a beat's inputs.
  FUSEGEN_DEVICE device::Shared boundaries(int slot) const {
    const int slots = a_.geometry.shared.ring + a_.geometry.shared.ring_slot;  // the first one's end
    return share_.memory + (slots + slot + (share_.thread / 32 - device::kWarps) * kBoundaryWord);
  }
  FUSEGEN_DEVICE void fetch_boundaries() const {
    const int T_ = static_cast<int>(a_.pass.T);
    if (share_.thread % 32 || static_cast<uint32_t>(fetch_t_) >= static_cast<uint32_t>(T_)) return;
    const uint32_t* const from =
        boundaries_before(a_.pass, direction_, direction_ == 1 ? T_ - fetch_t_ : fetch_t_ + 1);
    device::copy16_async(boundaries(slot_before(slot_)), from + (first_b_ + fetch_slice_ * kRows) / 128 * 4);
  }
  // Words around the lane's, where rows begin anywhere; none past the tensor's end.
  FUSEGEN_DEVICE void fetch_around(device::Shared to, const unsigned char* first) const {
    const int zero = device::in_register(0);  // as in read()
    const unsigned char* const end =
        static_cast<const unsigned char*>(a_.pass.gx) + (a_.pass.T + zero) * a_.gx.step;
    const auto copy = [&](device::Shared shared, const unsigned char* from) {
      const int64_t left = end - from;
      device::copy_some_of_16_async(shared, left > 0 ? from : a_.pass.gx,
                                    left >= 16 ? 16
                                    : left > 0 ? static_cast<int>(left)
                                               : 0);
    };
    const Patch patch{Rows::kPairs, share_.count};
    const int row = patch.units() * kNumber, step = (share_.parts + zero) * patch.rows() * (row + 16);
    const bool begins = ((share_.word + zero) * 16 & (row - 1)) == 0;  // of rows of a power of two
#pragma unroll
    for (int i = 0; i < kMostIn; ++i) {
      if (share_.part + i * share_.parts >= kGates) break;
      const unsigned char* from = first + i * share_.parts * gate_bytes_;
      from -= reinterpret_cast<uintptr_t>(from) % 16;
      copy(to + i * step, from);
      if (begins) copy(to + (i * step + row), from + row);
    }
  }

  // A number of the lane's pair i in the slot, where rows are whole words.
  template <int kCount>
  FUSEGEN_DEVICE device::Shared number(int i, int segment) const {
    constexpr Patch patch{Rows::kPairs, kCount};
    return numbers_ + (slot_ + (segment * patch.rows() * patch.units() + patch.row(0, i) * patch.units() +
                                patch.unit(0, i)) *
                                   kNumber);
  }

  const Arguments<ForwardPass>& a_;
  const Share& share_;
  const int gate_bytes_;
  const bool whole_;
  // Of the next beat to ask for.
  int fetch_t_, fetch_slice_ = 0;
  int fetch_slices_ = 0;  // that have a row for the lane's word
  const int forth_, direction_, first_b_;
  device::Shared fetch_to_;
  const unsigned char* from_;
  // Of the beat that is worked on.
  int slot_ = 0;
  device::Shared numbers_;
  unsigned char* saved_;
};

}  // namespace fusegen::cuda
