// oneDNN's own recurrent primitives behind a C interface, for benchmarks/peers/onednn_direct.py.
//
// One Layer is one cell, one direction, one layer, zero initial state, over a dense [T,B,I] batch.
// Inference: weights stand in the layout that the primitive asks for (format any), reordered at creation.
// Training: forward, backward and the weight reorders of both, from and to plain [G*H, I] matrices, per run.
// Plain matrices have their gates in oneDNN's order (LSTM i,f,g,o; GRU z,r,n); the caller permutes.

#include <cstring>
#include <stdexcept>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "oneapi/dnnl/dnnl.hpp"

using dnnl::memory;

namespace {

constexpr auto direction = dnnl::rnn_direction::unidirectional_left2right;

thread_local std::string last_error;

// The base's protected constructors take every cell and the flags that the per-cell classes hide.
struct Descriptor : dnnl::rnn_primitive_desc_base {
  template <class... Args>
  explicit Descriptor(const dnnl::engine& engine, Args&&... args)
      : rnn_primitive_desc_base(engine, std::forward<Args>(args)...) {}
};

// Who writes: the library writes y, h_n, c_n and, in training, every d*; all else is read.
struct Buffers {
  void* x;                // [T,B,I]
  void *w, *r;            // [G*H,I], [G*H,H]
  void* bias;             // float [G*H]; GRU: [4*H], the fourth block being b_hn
  void *y, *h_n;          // [T,B,H], [B,H]
  void* c_n;              // float [B,H]; LSTM only
  void *dy, *dx;          // [T,B,H], [T,B,I]; float
  void *dw, *dr, *dbias;  // as w, r, bias; float
};

// What is computed. The other side of `Shape` in onednn_direct.py.
struct Shape {
  const char* cell;  // lstm, gru or rnn
  int T, B, I, H;
  int bf16, train;  // 0 or 1
};

// The memories' shapes and layouts: as the caller has them, and (any) left to the primitive.
struct Formats {
  using dt = memory::data_type;
  using tag = memory::format_tag;
  bool lstm, gru, train;
  dt real;
  memory::dims w_dims, r_dims, state_dims;
  memory::desc x, y, bias, h, c, h0, c0, w_any, r_any, w_user, r_user;

  explicit Formats(const Shape& shape)
      : lstm(shape.cell == std::string("lstm")),
        gru(shape.cell == std::string("gru")),
        train(shape.train != 0),
        real(shape.bf16 ? dt::bf16 : dt::f32) {
    const memory::dim T = shape.T, B = shape.B, I = shape.I, H = shape.H;
    const memory::dim G = lstm ? 4 : gru ? 3 : 1, GB = gru ? 4 : G;
    w_dims = {1, 1, I, G, H}, r_dims = {1, 1, H, G, H}, state_dims = {1, 1, B, H};
    x = {{T, B, I}, real, tag::tnc};
    y = {{T, B, H}, real, tag::tnc};
    bias = {{1, 1, GB, H}, dt::f32, tag::ldgo};
    h = {state_dims, real, tag::ldnc};
    if (lstm) c = {state_dims, dt::f32, tag::ldnc};
    // Without an initial state, LSTM and RNN backward read garbage for it in 3.2 (dR nonzero at T=1).
    if (train) h0 = h, c0 = c;
    w_any = {w_dims, real, tag::any}, r_any = {r_dims, real, tag::any};
    w_user = {w_dims, real, tag::ldgoi}, r_user = {r_dims, real, tag::ldgoi};
  }

  dnnl::algorithm algorithm() const {
    return lstm  ? dnnl::algorithm::vanilla_lstm
           : gru ? dnnl::algorithm::lbr_gru
                 : dnnl::algorithm::vanilla_rnn;
  }
  dnnl::algorithm activation() const {
    return lstm || gru ? dnnl::algorithm::undef : dnnl::algorithm::eltwise_tanh;
  }
};

struct Layer {
  dnnl::engine engine{dnnl::engine::kind::cpu, 0};
  dnnl::stream stream{engine};
  Formats formats;
  Buffers user;
  dnnl::primitive forward, backward;
  std::unordered_map<int, memory> forward_args, backward_args;
  struct Copy {
    dnnl::reorder step;
    memory from, to;
  };
  std::vector<Copy> before_forward, before_backward, after_backward;

  Layer(const Shape& shape, const Buffers& buffers) : formats(shape), user(buffers) {
    const Descriptor pd = make_forward();
    if (formats.train) {
      make_backward(pd);
      return;
    }
    run(before_forward);
    before_forward.clear();
    stream.wait();
  }

  Descriptor make_forward() {
    const Formats& f = formats;
    const auto prop = f.train ? dnnl::prop_kind::forward_training : dnnl::prop_kind::forward_inference;
    Descriptor pd(engine, f.algorithm(), prop, f.activation(), direction, f.x, f.h0, &f.c0, nullptr, f.w_any,
                  f.r_any, nullptr, nullptr, f.bias, f.y, f.h, &f.c, dnnl::rnn_flags::undef, 0.f, 0.f,
                  dnnl::primitive_attr(), false);
    forward = dnnl::primitive(pd.get());
    forward_args = {{DNNL_ARG_SRC_LAYER, at(f.x, user.x)},
                    {DNNL_ARG_WEIGHTS_LAYER, weight(pd, DNNL_ARG_WEIGHTS_LAYER, w(), before_forward)},
                    {DNNL_ARG_WEIGHTS_ITER, weight(pd, DNNL_ARG_WEIGHTS_ITER, r(), before_forward)},
                    {DNNL_ARG_BIAS, at(f.bias, user.bias)},
                    {DNNL_ARG_DST_LAYER, at(f.y, user.y)},
                    {DNNL_ARG_DST_ITER, at(f.h, user.h_n)}};
    if (f.lstm) forward_args.emplace(DNNL_ARG_DST_ITER_C, at(f.c, user.c_n));
    if (!f.train) return pd;
    forward_args.emplace(DNNL_ARG_SRC_ITER, zeros(f.h));
    if (f.lstm) forward_args.emplace(DNNL_ARG_SRC_ITER_C, zeros(f.c));
    forward_args.emplace(DNNL_ARG_WORKSPACE, own(layout(pd, DNNL_ARG_WORKSPACE)));
    return pd;
  }

  void make_backward(const Descriptor& forward_pd) {
    using dt = memory::data_type;
    using tag = memory::format_tag;
    const Formats& f = formats;
    const memory::desc dx(f.x.get_dims(), dt::f32, tag::tnc), dy(f.y.get_dims(), dt::f32, tag::tnc),
        dw_any(f.w_dims, dt::f32, tag::any), dr_any(f.r_dims, dt::f32, tag::any),
        dh(f.state_dims, dt::f32, tag::ldnc);
    const memory::desc dc = f.lstm ? dh : memory::desc();
    const Descriptor pd(engine, f.algorithm(), dnnl::prop_kind::backward, f.activation(), direction, f.x,
                        f.h0, &f.c0, nullptr, f.w_any, f.r_any, nullptr, nullptr, f.bias, f.y, f.h, &f.c, dx,
                        dh, &dc, nullptr, dw_any, dr_any, nullptr, nullptr, f.bias, dy, dh, &dc,
                        dnnl::rnn_flags::diff_weights_overwrite, 0.f, 0.f, forward_pd, dnnl::primitive_attr(),
                        false);
    backward = dnnl::primitive(pd.get());
    const memory dw = own(layout(pd, DNNL_ARG_DIFF_WEIGHTS_LAYER));
    const memory dr = own(layout(pd, DNNL_ARG_DIFF_WEIGHTS_ITER));
    copy(after_backward, dw, at({f.w_dims, dt::f32, tag::ldgoi}, user.dw));
    copy(after_backward, dr, at({f.r_dims, dt::f32, tag::ldgoi}, user.dr));
    backward_args = forward_args;
    backward_args.at(DNNL_ARG_WEIGHTS_LAYER) = weight(pd, DNNL_ARG_WEIGHTS_LAYER, w(), before_backward);
    backward_args.at(DNNL_ARG_WEIGHTS_ITER) = weight(pd, DNNL_ARG_WEIGHTS_ITER, r(), before_backward);
    backward_args.emplace(DNNL_ARG_DIFF_SRC_LAYER, at(dx, user.dx));
    backward_args.emplace(DNNL_ARG_DIFF_SRC_ITER, zeros(dh));
    backward_args.emplace(DNNL_ARG_DIFF_WEIGHTS_LAYER, dw);
    backward_args.emplace(DNNL_ARG_DIFF_WEIGHTS_ITER, dr);
    backward_args.emplace(DNNL_ARG_DIFF_BIAS, at(f.bias, user.dbias));
    backward_args.emplace(DNNL_ARG_DIFF_DST_LAYER, at(dy, user.dy));
    // The primitive wants a gradient wherever forward had an output; the loss does not use h_n and c_n.
    backward_args.emplace(DNNL_ARG_DIFF_DST_ITER, zeros(dh));
    if (!f.lstm) return;
    backward_args.emplace(DNNL_ARG_DIFF_SRC_ITER_C, zeros(dc));
    backward_args.emplace(DNNL_ARG_DIFF_DST_ITER_C, zeros(dc));
  }

  memory at(const memory::desc& md, void* p) { return memory(md, engine, p); }
  memory own(const memory::desc& md) { return memory(md, engine); }
  memory w() { return at(formats.w_user, user.w); }
  memory r() { return at(formats.r_user, user.r); }

  static memory::desc layout(const Descriptor& pd, int arg) {
    return pd.query_md(dnnl::query::exec_arg_md, arg);
  }
  static void copy(std::vector<Copy>& list, const memory& from, const memory& to) {
    list.push_back({dnnl::reorder(from, to), from, to});
  }
  // A memory in the primitive's layout, filled from the plain one by a listed reorder.
  memory weight(const Descriptor& pd, int arg, const memory& plain, std::vector<Copy>& list) {
    memory m = own(layout(pd, arg));
    copy(list, plain, m);
    return m;
  }

  memory zeros(const memory::desc& md) {
    memory m(md, engine);
    std::memset(m.get_data_handle(), 0, md.get_size());
    return m;
  }

  void run(std::vector<Copy>& copies) {
    for (auto& c : copies) c.step.execute(stream, c.from, c.to);
  }

  void run() {
    run(before_forward);
    forward.execute(stream, forward_args);
    if (formats.train) {
      run(before_backward);
      backward.execute(stream, backward_args);
      run(after_backward);
    }
    stream.wait();
  }
};

}  // namespace

extern "C" {

const char* fg_onednn_error() { return last_error.c_str(); }

const char* fg_onednn_version() {
  static const auto* v = dnnl_version();
  static const std::string text =
      std::to_string(v->major) + "." + std::to_string(v->minor) + "." + std::to_string(v->patch);
  return text.c_str();
}

// Null on failure, for example a type that this CPU has no kernel for; fg_onednn_error says why.
void* fg_onednn_create(const Shape* shape, const Buffers* buffers) {
  try {
    return new Layer(*shape, *buffers);
  } catch (const std::exception& e) {
    last_error = e.what();
    return nullptr;
  }
}

int fg_onednn_run(void* layer) {
  try {
    static_cast<Layer*>(layer)->run();
    return 0;
  } catch (const std::exception& e) {
    last_error = e.what();
    return 1;
  }
}

void fg_onednn_destroy(void* layer) { delete static_cast<Layer*>(layer); }
}
