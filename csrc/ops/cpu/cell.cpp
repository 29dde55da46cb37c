#include "cell.h"

namespace fusegen {
namespace {

// [B,n] with `ones` dimensions of size 1 in front: as one step [1,B,n], one direction's state [1,B,n], or
// what one direction saved of one step [1,1,B,n]. Other shapes stay as they are, for the layer's checks to
// name.
View with_ones(View v, int ones) {
  if (!v || v.ndim != 2) return v;
  v.ndim = 2 + ones;
  for (int i = 2; i-- > 0;) {
    v.shape[i + ones] = v.shape[i];
    v.strides[i + ones] = v.strides[i];
  }
  for (int i = 0; i < ones; ++i) {
    v.shape[i] = 1;
    v.strides[i] = 0;
  }
  return v;
}

}  // namespace

void cell_forward(const LayerForward& step) {
  LayerForward layer = step;
  for (View* v : {&layer.x, &layer.h0, &layer.c0, &layer.y, &layer.h_n, &layer.c_n}) *v = with_ones(*v, 1);
  for (View* v : {&layer.gates, &layer.cells}) *v = with_ones(*v, 2);
  layer_forward(layer);
}

void cell_backward(const LayerBackward& step) {
  LayerBackward layer = step;
  for (View* v :
       {&layer.dy, &layer.dc_n, &layer.x, &layer.h0, &layer.c0, &layer.y, &layer.dx, &layer.dh0, &layer.dc0})
    *v = with_ones(*v, 1);
  for (View* v : {&layer.gates, &layer.cells}) *v = with_ones(*v, 2);
  layer_backward(layer);
}

}  // namespace fusegen
