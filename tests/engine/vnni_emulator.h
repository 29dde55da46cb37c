// AVX-VNNI's vpdpbusd on an x86-64 CPU that has AVX2 but not this instruction: what the CPU refuses to run is
// done here, and the program goes on behind it.
//
// Linux alone. Decoded is VEX.256.66.0F38.W0 50 /r, vpdpbusd ymm1, ymm2, ymm3/m256: each 32-bit lane of ymm1
// grows by the four products of ymm2's unsigned with the other's signed bytes, without saturation (Intel 64
// and IA-32 Architectures Software Developer's Manual, volume 2). Anything else dies as it would.
#pragma once
#if defined(__x86_64__) && defined(__linux__)
#define FUSEGEN_EMULATES_VNNI 1
#include <cpuid.h>
#include <signal.h>
#include <ucontext.h>

#include <cstdint>
#include <cstring>

namespace fusegen::test {

class VnniEmulator {
public:
  // From now on, for the process.
  static void start() {
    uint32_t size, offset, c, d;
    __cpuid_count(0xd, 2, size, offset, c, d);  // where a signal's frame has the upper halves of ymm0..15
    upper_at = offset;
    struct sigaction action = {};
    action.sa_sigaction = on_signal;
    action.sa_flags = SA_SIGINFO;
    sigaction(SIGILL, &action, nullptr);
  }
  // Instructions done so far; of one thread, where several run it is a lower bound.
  static inline volatile int64_t done = 0;

private:
  static inline uint32_t upper_at = 0;

  struct Ymm {
    uint8_t bytes[32];
  };

  static void on_signal(int, siginfo_t*, void* frame) {
    mcontext_t& cpu = static_cast<ucontext_t*>(frame)->uc_mcontext;
    if (emulate(cpu)) done = done + 1;
    else signal(SIGILL, SIG_DFL);
  }

  static bool emulate(mcontext_t& cpu) {
    const uint8_t* const code = reinterpret_cast<const uint8_t*>(cpu.gregs[REG_RIP]);
    // 0xc4, ~R ~X ~B map, W ~vvvv L pp, opcode, ModRM
    if (code[0] != 0xc4 || (code[1] & 31) != 2 || (code[2] & 0x87) != 0x05 || code[3] != 0x50) return false;
    const int to = (code[4] >> 3 & 7) | (code[1] & 0x80 ? 0 : 8), first = ~code[2] >> 3 & 15;
    const uint8_t* next = code + 5;
    Ymm sum = read(cpu, to), a = read(cpu, first), b;
    if (code[4] >> 6 == 3) {
      b = read(cpu, (code[4] & 7) | (code[1] & 0x20 ? 0 : 8));
    } else {
      const uint8_t* const from = address(cpu, code, next);
      std::memcpy(&b, from, sizeof b);
    }
    for (int lane = 0; lane < 8; ++lane) {
      int32_t s;
      std::memcpy(&s, sum.bytes + 4 * lane, 4);
      for (int i = 4 * lane; i < 4 * lane + 4; ++i) s += a.bytes[i] * static_cast<int8_t>(b.bytes[i]);
      std::memcpy(sum.bytes + 4 * lane, &s, 4);
    }
    write(cpu, to, sum);
    cpu.gregs[REG_RIP] = reinterpret_cast<int64_t>(next);
    return true;
  }

  static int64_t general(const mcontext_t& cpu, int number) {
    constexpr int kOf[] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
                           REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};
    return cpu.gregs[kOf[number]];
  }

  // Of the operand in memory; `next` moves past its bytes.
  static const uint8_t* address(const mcontext_t& cpu, const uint8_t* code, const uint8_t*& next) {
    const int mod = code[4] >> 6, rm = code[4] & 7, B = code[1] & 0x20 ? 0 : 8, X = code[1] & 0x40 ? 0 : 8;
    int64_t at = 0;
    bool wide = mod == 2;
    if (rm == 4) {
      const uint8_t sib = *next++;
      const int base = sib & 7, index = (sib >> 3 & 7) | X;
      if (index != 4) at += general(cpu, index) << (sib >> 6);
      if (base == 5 && mod == 0) wide = true;
      else at += general(cpu, base | B);
    } else if (rm == 5 && mod == 0) {  // from the end of the instruction
      wide = true;
      at = reinterpret_cast<int64_t>(next + 4);
    } else {
      at = general(cpu, rm | B);
    }
    if (wide) {
      int32_t displacement;
      std::memcpy(&displacement, next, 4);
      next += 4;
      at += displacement;
    } else if (mod == 1) {
      at += static_cast<int8_t>(*next++);
    }
    return reinterpret_cast<const uint8_t*>(at);
  }

  // The frame's area as XSAVE writes it: xmm0..15 from byte 160, which parts are there at 512.
  static Ymm read(const mcontext_t& cpu, int number) {
    const uint8_t* const area = reinterpret_cast<const uint8_t*>(cpu.fpregs);
    Ymm value;
    std::memcpy(value.bytes, area + 160 + 16 * number, 16);
    if (area[512] & 4) std::memcpy(value.bytes + 16, area + upper_at + 16 * number, 16);
    else std::memset(value.bytes + 16, 0, 16);
    return value;
  }
  static void write(mcontext_t& cpu, int number, const Ymm& value) {
    uint8_t* const area = reinterpret_cast<uint8_t*>(cpu.fpregs);
    if (!(area[512] & 4)) std::memset(area + upper_at, 0, 16 * 16);
    area[512] |= 6;
    std::memcpy(area + 160 + 16 * number, value.bytes, 16);
    std::memcpy(area + upper_at + 16 * number, value.bytes + 16, 16);
  }
};

}  // namespace fusegen::test
#endif
