// From the jobs of a pass to its launches. Host.
#pragma once
#include <algorithm>
#include <vector>

#include <device/launch.h>

#include "maps.h"
#include "step.h"

namespace fusegen::cuda {

// The jobs of a pass, in phases: those of one need nothing of each other.
class Schedule {
public:
  // The next jobs read what those before have written.
  void next_phase() { ++phase_; }

  void add(const LayerArguments& layer) {
    add(Part::layer, {layer.rows.count, layer.N, layer.K, phase_}).layer = layer;
  }
  void add(const WeightGradient& product, int rows) {
    add(Part::product, {product.M, product.N, rows, phase_}).product = product;
  }
  void add(const MaskArguments& mask, int rows) {
    add(Part::masks, {0, 0, 0, phase_}, ceil_div(rows, device::kWarps)).mask = mask;
  }
  void add(const ColumnSum& sum) { add(Part::sum, {0, 0, 0, phase_}, ceil_div(sum.n, 32)).sum = sum; }
  // Of rows: eight a unit.
  void add_rows(Part part, int rows) { add(part, {0, 0, 0, phase_}, ceil_div(rows, device::kWarps)); }
  void add_totals() { add(Part::totals, {0, 0, 0, phase_}, 1); }

  // Where the device cannot hold at once the blocks that are to wait for each other, each phase is a launch
  // of its own.
  template <class T, class Fmt, bool plain>
  MlpRun run(StepArguments& a, Format format, const Device& device, void* stream) {
    const MlpTile tile = choose_tile(device, format, products());
    const int sms = device.sms;
    if constexpr (sizeof(T) == 2) {
      if (tile == MlpTile::warpgroups) return run_as<T, Fmt, WarpgroupTile, plain>(tile, a, sms, stream);
    }
    if constexpr (!std::is_same_v<Fmt, device::FormatF32>) {
      if (tile == MlpTile::large) return run_as<T, Fmt, LargeTile<T>, plain>(tile, a, sms, stream);
    }
    if (tile == MlpTile::medium) return run_as<T, Fmt, MediumTile<T>, plain>(tile, a, sms, stream);
    return run_as<T, Fmt, SmallTile, plain>(tile, a, sms, stream);
  }

private:
  struct Entry {
    Job job;
    ProductSize size;  // of a product; else m is 0
  };

  Job& add(Part part, const ProductSize& size, int units = 0) {
    entries_.push_back({});
    Entry& e = entries_.back();
    e.job.part = part;
    e.job.units = units;
    e.size = size;
    return e.job;
  }

  std::vector<ProductSize> products() const {
    std::vector<ProductSize> of;
    for (const Entry& e : entries_)
      if (e.size.m) of.push_back(e.size);
    return of;
  }

  template <class T, class Fmt, class Tile, bool plain>
  MlpRun run_as(MlpTile tile, StepArguments& a, int sms, void* stream) {
    MlpRun ran{.together = true, .tile = tile, .products = 0, .bulk = 0, .torn_tiles = 0};
    for (Entry& e : entries_) {
      if (!e.size.m) continue;
      e.job.units = ceil_div(e.size.m, Tile::kM) * ceil_div(e.size.n, Tile::kN);
      ++ran.products;
      if constexpr (Tile::kWarpgroups) choose_copies<Tile>(a, e, ran);
    }
    const auto kernel = step_kernel<T, Fmt, Tile, plain>;
    for (size_t begin = 0; begin < entries_.size();) {
      size_t end = std::min(begin + kJobs, entries_.size());
      device::Launch l = launch_of<Tile>(a, begin, end, sms, stream);
      if (l.together && !device::resident(kernel, l)) {
        ran.together = false;
        while (entries_[end - 1].size.phase != entries_[begin].size.phase) --end;
        l = launch_of<Tile>(a, begin, end, sms, stream);
      }
      if constexpr (Tile::kWarpgroups) {
        device::launch(kernel, l, with_maps(a));
      } else {
        device::launch(kernel, l, a);
      }
      begin = end;
    }
    return ran;
  }

  // Of a product by warpgroups: what brings its operands.
  template <class Tile>
  static void choose_copies(const StepArguments& a, Entry& e, MlpRun& ran) {
    const bool layer = e.job.part == Part::layer;
    e.job.bulk = !layer || comes_in_boxes(a, e.job.layer);
    if (!e.job.bulk) return;
    ++ran.bulk;
    for (int m = 0; layer && m < e.size.m; m += Tile::kM)
      if (!boxes_of(a, e.job.layer, m).on_end) ran.torn_tiles += ceil_div(e.size.n, Tile::kN);
  }

  // Of entries begin .. end, whose jobs go into the arguments.
  template <class Tile>
  device::Launch launch_of(StepArguments& a, size_t begin, size_t end, int sms, void* stream) const {
    const auto phase = [&](size_t i) { return entries_[i].size.phase; };
    const bool together = phase(begin) != phase(end - 1);
    a.jobs = static_cast<int>(end - begin);
    a.blocks = 1;
    for (size_t i = begin, units = 0; i < end; ++i) {
      units = (i > begin && phase(i) == phase(i - 1) ? units : 0) + entries_[i].job.units;
      a.blocks = std::max(a.blocks, static_cast<int>(std::min<size_t>(units, sms)));
    }
    for (size_t i = begin, units = 0; i < end; ++i) {
      Job& job = a.job[i - begin] = entries_[i].job;
      job.waits = i > begin && phase(i) != phase(i - 1);
      if (job.waits) units = 0;
      job.first = static_cast<int>(units % a.blocks);
      units += job.units;
    }
    return {.blocks = a.blocks,
            .together = together,
            .shared_bytes = Tile::kRing * Tile::kStageBytes + barrier_bytes(Tile::kWarpgroups),
            .stream = stream};
  }

  std::vector<Entry> entries_;
  int phase_ = 0;
};

}  // namespace fusegen::cuda
