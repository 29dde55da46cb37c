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

struct Layer {
  dnnl::engine engine{dnnl::engine::kind::cpu, 0};
  dnnl::stream stream{engine};
  bool train;
  dnnl::primitive forward, backward;
  std::unordered_map<int, memory> forward_args, backward_args;
  struct Copy {
    dnnl::reorder step;
    memory from, to;
  };
  std::vector<Copy> before_forward, before_backward, after_backward;

  Layer(const std::string& cell, memory::dim T, memory::dim B, memory::dim I, memory::dim H, bool bf16,
        bool train_, const Buffers& user)
      : train(train_) {
    using tag = memory::format_tag;
    using dt = memory::data_type;
    const bool lstm = cell == "lstm", gru = cell == "gru";
    const auto kind = lstm  ? dnnl::algorithm::vanilla_lstm
                      : gru ? dnnl::algorithm::lbr_gru
                            : dnnl::algorithm::vanilla_rnn;
    const auto act = lstm || gru ? dnnl::algorithm::undef : dnnl::algorithm::eltwise_tanh;
    const auto direction = dnnl::rnn_direction::unidirectional_left2right;
    const memory::dim G = lstm ? 4 : gru ? 3 : 1, GB = gru ? 4 : G;
    const dt real = bf16 ? dt::bf16 : dt::f32;

    const memory::dims x_dims{T, B, I}, w_dims{1, 1, I, G, H}, r_dims{1, 1, H, G, H}, b_dims{1, 1, GB, H},
        y_dims{T, B, H}, state_dims{1, 1, B, H};
    const memory::desc none, x_md(x_dims, real, tag::tnc), y_md(y_dims, real, tag::tnc),
        b_md(b_dims, dt::f32, tag::ldgo), h_md(state_dims, real, tag::ldnc), w_any(w_dims, real, tag::any),
        r_any(r_dims, real, tag::any), w_user(w_dims, real, tag::ldgoi), r_user(r_dims, real, tag::ldgoi);
    const memory::desc c_md = lstm ? memory::desc(state_dims, dt::f32, tag::ldnc) : none;
    // Without an initial state, LSTM and RNN backward read garbage for it in 3.2 (dR nonzero at T=1).
    const memory::desc h0_md = train ? h_md : none, c0_md = train ? c_md : none;
    const dnnl::primitive_attr attr;

    const auto prop = train ? dnnl::prop_kind::forward_training : dnnl::prop_kind::forward_inference;
    const Descriptor fpd(engine, kind, prop, act, direction, x_md, h0_md, &c0_md, nullptr, w_any, r_any,
                         nullptr, nullptr, b_md, y_md, h_md, &c_md, dnnl::rnn_flags::undef, 0.f, 0.f, attr,
                         false);
    forward = dnnl::primitive(fpd.get());
    const auto at = [&](const memory::desc& md, void* p) { return memory(md, engine, p); };
    const auto own = [&](const memory::desc& md) { return memory(md, engine); };
    const auto desc = [](const Descriptor& pd, int arg) {
      return pd.query_md(dnnl::query::exec_arg_md, arg);
    };
    const auto copy = [&](std::vector<Copy>& list, const memory& from, const memory& to) {
      list.push_back({dnnl::reorder(from, to), from, to});
    };
    // A memory in the primitive's layout, filled from the plain one by a listed reorder.
    const auto weight = [&](const Descriptor& pd, int arg, const memory& plain, std::vector<Copy>& list) {
      memory m = own(desc(pd, arg));
      copy(list, plain, m);
      return m;
    };

    const memory w = at(w_user, user.w), r = at(r_user, user.r), bias = at(b_md, user.bias);
    forward_args = {{DNNL_ARG_SRC_LAYER, at(x_md, user.x)},
                    {DNNL_ARG_WEIGHTS_LAYER, weight(fpd, DNNL_ARG_WEIGHTS_LAYER, w, before_forward)},
                    {DNNL_ARG_WEIGHTS_ITER, weight(fpd, DNNL_ARG_WEIGHTS_ITER, r, before_forward)},
                    {DNNL_ARG_BIAS, bias},
                    {DNNL_ARG_DST_LAYER, at(y_md, user.y)},
                    {DNNL_ARG_DST_ITER, at(h_md, user.h_n)}};
    if (lstm) forward_args.emplace(DNNL_ARG_DST_ITER_C, at(c_md, user.c_n));
    if (!train) {
      run(before_forward);
      before_forward.clear();
      stream.wait();
      return;
    }

    const memory::desc dx_md(x_dims, dt::f32, tag::tnc), dy_md(y_dims, dt::f32, tag::tnc),
        dw_any(w_dims, dt::f32, tag::any), dr_any(r_dims, dt::f32, tag::any),
        dh_md(state_dims, dt::f32, tag::ldnc);
    const memory::desc dc_md = lstm ? dh_md : none;
    const auto overwrite = dnnl::rnn_flags::diff_weights_overwrite;
    const Descriptor bpd(engine, kind, dnnl::prop_kind::backward, act, direction, x_md, h0_md, &c0_md,
                         nullptr, w_any, r_any, nullptr, nullptr, b_md, y_md, h_md, &c_md, dx_md, dh_md,
                         &dc_md, nullptr, dw_any, dr_any, nullptr, nullptr, b_md, dy_md, dh_md, &dc_md,
                         overwrite, 0.f, 0.f, fpd, attr, false);
    backward = dnnl::primitive(bpd.get());
    forward_args.emplace(DNNL_ARG_SRC_ITER, zeros(h_md));
    if (lstm) forward_args.emplace(DNNL_ARG_SRC_ITER_C, zeros(c_md));
    const memory workspace = own(desc(fpd, DNNL_ARG_WORKSPACE));
    forward_args.emplace(DNNL_ARG_WORKSPACE, workspace);

    const memory dw = own(desc(bpd, DNNL_ARG_DIFF_WEIGHTS_LAYER));
    const memory dr = own(desc(bpd, DNNL_ARG_DIFF_WEIGHTS_ITER));
    copy(after_backward, dw, at(memory::desc(w_dims, dt::f32, tag::ldgoi), user.dw));
    copy(after_backward, dr, at(memory::desc(r_dims, dt::f32, tag::ldgoi), user.dr));
    backward_args = forward_args;
    backward_args.at(DNNL_ARG_WEIGHTS_LAYER) = weight(bpd, DNNL_ARG_WEIGHTS_LAYER, w, before_backward);
    backward_args.at(DNNL_ARG_WEIGHTS_ITER) = weight(bpd, DNNL_ARG_WEIGHTS_ITER, r, before_backward);
    backward_args.emplace(DNNL_ARG_DIFF_SRC_LAYER, at(dx_md, user.dx));
    backward_args.emplace(DNNL_ARG_DIFF_SRC_ITER, zeros(dh_md));
    if (lstm) backward_args.emplace(DNNL_ARG_DIFF_SRC_ITER_C, zeros(dc_md));
    backward_args.emplace(DNNL_ARG_DIFF_WEIGHTS_LAYER, dw);
    backward_args.emplace(DNNL_ARG_DIFF_WEIGHTS_ITER, dr);
    backward_args.emplace(DNNL_ARG_DIFF_BIAS, at(b_md, user.dbias));
    backward_args.emplace(DNNL_ARG_DIFF_DST_LAYER, at(dy_md, user.dy));
    // The primitive wants a gradient wherever forward had an output; the loss does not use h_n and c_n.
    backward_args.emplace(DNNL_ARG_DIFF_DST_ITER, zeros(dh_md));
    if (lstm) backward_args.emplace(DNNL_ARG_DIFF_DST_ITER_C, zeros(dc_md));
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
    if (train) {
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
void* fg_onednn_create(const char* cell, int T, int B, int I, int H, int bf16, int train,
                       const Buffers* buffers) {
  try {
    return new Layer(cell, T, B, I, H, bf16 != 0, train != 0, *buffers);
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
