"""Gates, h and c of every step by a loop of its own, in float64: what tests of inspect compare with."""

import torch


def gates_of(cell_name, gx, gh, c=None):
    """One step from W x + b_ih and R h + b_hh: (gates by name, new c or None, the new h of the old)."""
    if cell_name == "LSTM":
        a = gx + gh
        H = a.shape[-1] // 4
        i, f, o = (torch.sigmoid(a[..., k * H : (k + 1) * H]) for k in (0, 1, 3))
        g = torch.tanh(a[..., 2 * H : 3 * H])
        c = f * c + i * g
        return {"i": i, "f": f, "g": g, "o": o}, c, lambda h: o * torch.tanh(c)
    if cell_name == "GRU":
        H = gx.shape[-1] // 3
        r = torch.sigmoid(gx[..., :H] + gh[..., :H])
        z = torch.sigmoid(gx[..., H : 2 * H] + gh[..., H : 2 * H])
        n = torch.tanh(gx[..., 2 * H :] + r * gh[..., 2 * H :])
        return {"r": r, "z": z, "n": n}, None, lambda h: (1 - z) * n + z * h
    activation = torch.relu if cell_name == "RNN_RELU" else torch.tanh
    return {}, None, lambda h: activation(gx + gh)


def direction(cell_name, x, weights, *, start=None, lengths=None, reverse=False, zoneout=(0.0, 0.0)):
    """Arrays [T, B, n] by name of one direction of a layer on x [T, B, I]; weights W, R, b_ih, b_hh, W_hr."""
    W, R, b_ih, b_hh, W_hr = (None if w is None else w.detach().double() for w in weights)
    x = x.double()
    T, B, _ = x.shape
    H = R.shape[0] // {"LSTM": 4, "GRU": 3}.get(cell_name, 1)
    P = R.shape[1]
    rows = []
    for b in range(B):
        n = T if lengths is None else int(lengths[b])
        h, c = (x.new_zeros(P), x.new_zeros(H)) if start is None else (s[b].double() for s in start)
        found = [None] * T
        for t in reversed(range(n)) if reverse else range(n):
            gx = W @ x[t, b] + (0 if b_ih is None else b_ih)
            gh = R @ h + (0 if b_hh is None else b_hh)
            gates, c_new, out = gates_of(cell_name, gx, gh, c)
            h_new = out(h)
            h_new = h_new if W_hr is None else W_hr @ h_new
            h = zoneout[0] * h + (1 - zoneout[0]) * h_new
            c = c if c_new is None else zoneout[1] * c + (1 - zoneout[1]) * c_new
            found[t] = gates | {"h": h} | ({} if c_new is None else {"c": c})
        empty = {"h": x.new_zeros(P)} | {
            k: x.new_zeros(H)
            for k in {"LSTM": ("i", "f", "g", "o", "c"), "GRU": ("r", "z", "n")}.get(cell_name, ())
        }
        rows.append([empty if step is None else step for step in found])
    return {k: torch.stack([torch.stack([rows[b][t][k] for b in range(B)]) for t in range(T)]) for k in empty}


def stack(cell_name, m, x, lengths=None, zoneout=(0.0, 0.0)):
    """The arrays of every (layer, direction) of a layer of fusegen.nn on time-major x, in evaluation."""
    x = x.detach().double()
    found = {}
    for layer in range(m.num_layers):
        weights = m._weights(layer)
        D = 2 if m.bidirectional else 1
        per = len(weights) // D
        for d in range(D):
            of = (*weights[d * per : (d + 1) * per], None)[:5]
            found[layer, d] = direction(cell_name, x, of, lengths=lengths, reverse=d == 1, zoneout=zoneout)
        x = torch.cat([found[layer, d]["h"] for d in range(D)], -1)
    return found
