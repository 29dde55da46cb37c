// What the kernels of a recurrence are launched with, for one case, without a GPU: the plan and the launcher
// are the library's own, the launch itself prints its arguments. Linked with choose.cpp, workspace.cpp and
// one file of instantiations/, compiled for the host; what of the emulator the kernels name stays unresolved
// and is never called.
//
// launches PASS CELL FORMAT H B T TRANSPORT BYTES: a line "plan ..." and, for each launch, a line
// "launch SYMBOL blocks threads cluster together shared HEX", where HEX is that many bytes of arguments.
#include <dlfcn.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

#include "device/mma.h"
#include "emulator.h"
#include "recurrent/pass.h"

using namespace fusegen::cuda;

using fusegen::Cell;

namespace {

int argument_bytes;

// An address of device memory that is not read here, 16-byte aligned.
void* somewhere() {
  static uint64_t next = 0x7000'0000'0000;
  return reinterpret_cast<void*>(next += 0x1'0000'0000);
}

Cell cell_of(const std::string& name) {
  return name == "lstm" ? Cell::lstm : name == "gru" ? Cell::gru : Cell::rnn_tanh;
}

Format format_of(const std::string& name) {
  return name == "bf16"  ? Format::bf16
         : name == "f16" ? Format::f16
         : name == "f32" ? Format::f32
                         : Format::tf32;
}

const char* name_of(Transport t) {
  return t == Transport::launch  ? "launch"
         : t == Transport::block ? "block"
         : t == Transport::l2    ? "l2"
                                 : "cluster";
}

}  // namespace

namespace simt {

Settings& settings() {
  static Settings s;
  return s;
}

void run(void (*)(const void*), const void* bound, int blocks, int threads, int cluster, bool together,
         size_t shared_bytes) {
  struct {
    void* kernel;
    const unsigned char* arguments;
  } of;
  std::memcpy(&of, bound, sizeof of);  // tests/simt/device/launch.h: Bound
  Dl_info info{};
  dladdr(of.kernel, &info);
  std::printf("launch %s %d %d %d %d %zu ", info.dli_sname ? info.dli_sname : "?", blocks, threads, cluster,
              together, shared_bytes);
  for (int i = 0; i < argument_bytes; ++i) std::printf("%02x", of.arguments[i]);
  std::printf("\n");
}

}  // namespace simt

namespace fusegen::cuda {

Device device(int) { return device_of(132, 227 * 1024, 9, 90); }

}  // namespace fusegen::cuda

namespace {

template <class Pass>
Pass pass_of(char** argument) {
  Pass p{};
  p.cell = cell_of(argument[2]);
  p.format = format_of(argument[3]);
  p.backward = std::string(argument[1]) == "backward";
  p.H = p.P = std::atoi(argument[4]);
  p.B = std::atoi(argument[5]);
  p.D = 1;
  p.T = std::atoi(argument[6]);
  const std::string transport = argument[7];
  p.plan = choose(fusegen::cuda::device(0), p,
                  transport == "best"      ? -1
                  : transport == "cluster" ? 3
                  : transport == "l2"      ? 2
                                           : 0);
  p.R[0] = somewhere();
  p.workspace = std::aligned_alloc(256, (p.plan.workspace_bytes + 511) / 256 * 256);
  p.error = static_cast<decltype(p.error)>(somewhere());
  std::printf("plan %s blocks %d k_splits %d tiles %d slices %d groups %d\n", name_of(p.plan.transport),
              p.plan.blocks, p.plan.k_splits, p.plan.tiles, p.plan.slices, p.plan.groups);
  return p;
}

// A training call, as the layer makes it.
ForwardPass forward_pass(char** argument) {
  auto p = pass_of<ForwardPass>(argument);
  p.gx = somewhere();
  if (p.cell == Cell::gru) p.b_hn[0] = somewhere();
  p.y = somewhere();
  p.h_n = somewhere();
  if (p.cell == Cell::lstm) {
    p.c_n = somewhere();
    p.cells = static_cast<float*>(somewhere());
  }
  if (p.cell == Cell::lstm || p.cell == Cell::gru) p.gates = somewhere();
  return p;
}

BackwardPass backward_pass(char** argument) {
  auto p = pass_of<BackwardPass>(argument);
  p.dy = somewhere();
  p.y = somewhere();
  if (p.cell == Cell::lstm) p.cells = static_cast<float*>(somewhere());
  if (p.cell == Cell::lstm || p.cell == Cell::gru) p.gates = somewhere();
  p.dgates = somewhere();
  return p;
}

template <class T, class Fmt>
void run_format(char** argument) {
#ifdef FUSEGEN_BACKWARD
  run<T, Fmt>(backward_pass(argument));
#else
  run<T, Fmt>(forward_pass(argument));
#endif
}

}  // namespace

int main(int count, char** argument) {
  if (count != 9) return 2;
  argument_bytes = std::atoi(argument[8]);
  run_format<FUSEGEN_NUMBER, FUSEGEN_FORMAT>(argument);
}
