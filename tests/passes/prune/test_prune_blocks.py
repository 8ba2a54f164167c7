"""Each kind of block that networks are made of: what leaves, and what stays with which reason."""

from collections.abc import Callable

HEAD = '<ir_version: 8, opset_import: ["" : 17]>\n'


def test_grouped_convolution_loses_as_many_channels_of_each_group(prune: Callable) -> None:
    pruned = prune(
        HEAD
        + """g (float[N,3,6,6] x) => (float[N,4,6,6] y)
        <float[16,3,1,1] w1, float[16] b1, float[24,4,3,3] w2, float[24] b2, float[4,24,1,1] w3>
        {
            a = Conv (x, w1, b1)
            r = Relu (a)
            b = Conv <group = 4, pads = [1, 1, 1, 1]> (r, w2, b2)
            s = Relu (b)
            y = Conv (s, w3)
        }""",
        ratio=0.5,
    )
    assert pruned.shape("w1")[0] == 8
    assert pruned.shape("w2") == (12, 2, 3, 3)
    assert pruned.shape("b2") == (12,)
    assert pruned.shape("w3")[1] == 12


def test_a_grouped_weight_of_two_nodes_loses_the_same_columns_in_each_group(prune: Callable) -> None:
    pruned = prune(
        HEAD
        + """g (float[N,3,6,6] x) => (float[N,4,6,6] y)
        <float[16,3,1,1] w1, float[16,4,3,3] w2, float[4,16,1,1] w3>
        {
            a = Conv (x, w1)
            b = Conv <group = 4, pads = [1, 1, 1, 1]> (a, w2)
            c = Relu (b)
            d = Conv <group = 4, pads = [1, 1, 1, 1]> (c, w2)
            y = Conv (d, w3)
        }""",
        ratio=0.5,
    )
    assert pruned.shape("w2") == (8, 2, 3, 3)


def test_depthwise_convolution_ties_input_and_output(prune: Callable) -> None:
    pruned = prune(
        HEAD
        + """g (float[N,3,6,6] x) => (float[N,4,6,6] y)
        <float[16,3,1,1] w1, float[16,1,3,3] w2, float[16] b2, float[4,16,1,1] w3>
        {
            a = Conv (x, w1)
            b = Conv <group = 16, pads = [1, 1, 1, 1]> (a, w2, b2)
            c = Clip (b)
            y = Conv (c, w3)
        }""",
        ratio=0.25,
    )
    assert pruned.shape("w2") == (12, 1, 3, 3)
    assert next(n.attrs["group"] for n in pruned.model.graph.nodes if n.name == "b") == 12


def test_depthwise_multiplier_leaves_with_its_input_channel(prune: Callable) -> None:
    pruned = prune(
        HEAD
        + """g (float[N,3,6,6] x) => (float[N,4,6,6] y)
        <float[8,3,1,1] w1, float[24,1,3,3] w2, float[4,24,1,1] w3>
        {
            a = Conv (x, w1)
            b = Conv <group = 8, pads = [1, 1, 1, 1]> (a, w2)
            y = Conv (b, w3)
        }""",
        ratio=0.25,
    )
    assert (pruned.shape("w1")[0], pruned.shape("w2")[0], pruned.shape("w3")[1]) == (6, 18, 18)


def test_transposed_convolutions_plain_grouped_and_depthwise(prune: Callable) -> None:
    pruned = prune(
        HEAD
        + """g (float[N,3,4,4] x) => (float[N,4,16,16] y)
        <float[8,3,1,1] w1, float[8,12,2,2] w2, float[12] b2, float[12,4,1,1] w3, float[16,1,2,2] w4, float[16] b4,
         float[4,16,1,1] w5>
        {
            a = Conv (x, w1)
            b = ConvTranspose <strides = [2, 2]> (a, w2, b2)
            c = Relu (b)
            d = ConvTranspose <group = 4> (c, w3)
            e = ConvTranspose <group = 16, strides = [2, 2]> (d, w4, b4)
            y = Conv (e, w5)
        }""",
        ratio=0.5,
    )
    assert pruned.shape("w2")[:2] == (4, 8)  # 12 channels in groups of 3: one of each leaves
    assert pruned.shape("w3")[:2] == (8, 2)


def test_channel_shuffle_is_followed(prune: Callable) -> None:
    pruned = prune(
        HEAD
        + """g (float[N,3,6,6] x) => (float[N,4,6,6] y)
        <float[24,3,1,1] w1, float[24,8,1,1] w2, float[24,1,3,3] w3, float[24,8,1,1] w4, float[4,24,1,1] w5,
         int64[5] split = {0, 3, 8, 6, 6}, int64[4] merge = {0, 24, 6, 6}>
        {
            a = Conv (x, w1)
            b = Conv <group = 3> (a, w2)
            r = Relu (b)
            s = Reshape (r, split)
            t = Transpose <perm = [0, 2, 1, 3, 4]> (s)
            u = Reshape (t, merge)
            v = Conv <group = 24, pads = [1, 1, 1, 1]> (u, w3)
            z = Conv <group = 3> (v, w4)
            y = Conv (z, w5)
        }""",
        ratio=0.5,
    )
    # Positions 6, 7, 8 and 15, 16, 17 come from one channel of each group and lie on a border: they stay.
    assert pruned.shape("w2")[:2] == (15, 4)
    assert pruned.shape("w3")[0] == 15
    assert pruned.shape("w4")[:2] == (12, 5)
    assert pruned.shape("w5")[1] == 12
    assert "lies in two groups of Conv 'z'" in pruned.reasons()


def test_squeeze_excite_gates_leave_with_their_channels(prune: Callable) -> None:
    pruned = prune(
        HEAD
        + """g (float[N,3,6,6] x) => (float[N,4,6,6] y)
        <float[16,3,1,1] w1, float[4,16,1,1] down, float[16,4,1,1] up, float[16] up_b, float[4,16,1,1] w2>
        {
            a = Conv (x, w1)
            h = HardSwish (a)
            g = GlobalAveragePool (h)
            d = Conv (g, down)
            r = Relu (d)
            u = Conv (r, up, up_b)
            s = HardSigmoid (u)
            m = Mul (h, s)
            y = Conv (m, w2)
        }""",
        ratio=0.25,
    )
    assert pruned.shape("down")[:2] == (3, 12)
    assert pruned.shape("up")[:2] == (12, 3)


def test_squeeze_excite_of_linear_layers_with_an_expanded_gate(prune: Callable) -> None:
    pruned = prune(
        HEAD
        + """g (float[N,3,6,6] x) => (float[N,4,6,6] y)
        <float[16,3,1,1] w1, float[16,4] down, float[4,16] up, float[4,16,1,1] w2,
         int64[1] zero = {0}, int64[3] ones = {16, 1, 1}>
        {
            a = Conv (x, w1)
            p = ReduceMean <axes = [2, 3], keepdims = 0> (a)
            d = MatMul (p, down)
            r = Relu (d)
            u = MatMul (r, up)
            s = Sigmoid (u)
            shape = Shape (u)
            n = Gather <axis = 0> (shape, zero)
            to = Concat <axis = 0> (n, ones)
            q = Reshape (s, to)
            whole = Shape (a)
            e = Expand (q, whole)
            m = Mul (a, e)
            y = Conv (m, w2)
        }""",
        ratio=0.25,
    )
    assert (pruned.shape("w1")[0], pruned.shape("down"), pruned.shape("up")) == (12, (12, 3), (3, 12))


def test_dense_block_concatenates_and_shrinks(prune: Callable) -> None:
    pruned = prune(
        HEAD
        + """g (float[N,3,6,6] x) => (float[N,4,6,6] y)
        <float[8,3,1,1] w1, float[4,8,3,3] w2, float[12] s, float[12] b, float[12] m, float[12] v,
         float[4,12,3,3] w3, float[4,16,1,1] w4>
        {
            a = Conv (x, w1)
            c1 = Conv <pads = [1, 1, 1, 1]> (a, w2)
            d1 = Concat <axis = 1> (a, c1)
            n = BatchNormalization (d1, s, b, m, v)
            r = Relu (n)
            c2 = Conv <pads = [1, 1, 1, 1]> (r, w3)
            d2 = Concat <axis = 1> (d1, c2)
            y = Conv (d2, w4)
        }""",
        ratio=0.5,
    )
    assert pruned.shape("s") == (6,)
    assert (pruned.shape("w3")[:2], pruned.shape("w4")[:2]) == ((2, 6), (4, 8))


def test_unet_with_transposed_convolution_resize_and_skip(prune: Callable) -> None:
    pruned = prune(
        HEAD
        + """g (float[N,3,8,8] x) => (float[N,2,8,8] y)
        <float[8,3,3,3] w1, float[16,8,3,3] w2, float[16,8,2,2] up, float[8,16,3,3] w3, float[2,16,1,1] w4,
         float[0] roi, float[4] scales = {1.0, 1.0, 2.0, 2.0}>
        {
            a = Conv <pads = [1, 1, 1, 1]> (x, w1)
            p = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (a)
            b = Conv <pads = [1, 1, 1, 1]> (p, w2)
            u = ConvTranspose <strides = [2, 2]> (b, up)
            c = Concat <axis = 1> (a, u)
            d = Conv <pads = [1, 1, 1, 1]> (c, w3)
            q = AveragePool <kernel_shape = [2, 2], strides = [2, 2]> (d)
            z = Resize <mode = "nearest"> (q, roi, scales)
            e = Concat <axis = 1> (z, a)
            y = Conv (e, w4)
        }""",
        ratio=0.5,
    )
    assert [pruned.shape(w)[:2] for w in ("w1", "w2", "up", "w3", "w4")] == [(4, 3), (8, 4), (8, 4), (4, 8), (2, 8)]


def test_resize_to_sizes_read_from_the_value_itself(prune: Callable) -> None:
    pruned = prune(
        HEAD
        + """g (float[N,3,8,8] x) => (float[N,2,16,16] y)
        <float[8,3,3,3] w1, float[2,8,1,1] w2, int64[1] zero = {0}, int64[1] two = {2}, int64[2] size = {16, 16}>
        {
            a = Conv <pads = [1, 1, 1, 1]> (x, w1)
            shape = Shape (a)
            front = Slice (shape, zero, two)
            sizes = Concat <axis = 0> (front, size)
            r = Resize <mode = "nearest"> (a, , , sizes)
            y = Conv (r, w2)
        }""",
        ratio=0.5,
    )
    assert pruned.shape("w1")[0] == 4


def test_a_size_used_in_arithmetic_pins(prune: Callable) -> None:
    pruned = prune(
        HEAD
        + """g (float[N,3,8,8] x) => (float[N,2,8,8] y)
        <float[8,3,1,1] w1, float[2,8,1,1] w2, int64 one = {1}>
        {
            a = Conv (x, w1)
            shape = Shape (a)
            c = Gather <axis = 0> (shape, one)
            f = Cast <to = 1> (c)
            q = Sqrt (f)
            d = Div (a, q)
            y = Conv (d, w2)
        }""",
        ratio=0.5,
    )
    assert pruned.shape("w1")[0] == 8
    assert "its size is read at run time and used by Sqrt 'q'" in pruned.reasons()


def test_inception_branches_shrink_one_by_one(prune: Callable) -> None:
    pruned = prune(
        HEAD
        + """g (float[N,8,6,6] x) => (float[N,3] y)
        <float[4,8,1,1] w1, float[6,8,1,1] w2, float[8,6,3,3] w3, float[4,8,1,1] w4, float[3,16] fc>
        {
            a = Conv (x, w1)
            b = Conv (x, w2)
            c = Conv <pads = [1, 1, 1, 1]> (b, w3)
            p = MaxPool <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (x)
            d = Conv (p, w4)
            e = Concat <axis = 1> (a, c, d)
            r = Relu (e)
            g = GlobalAveragePool (r)
            f = Flatten (g)
            y = Gemm <transB = 1> (f, fc)
        }""",
        ratio=0.5,
    )
    assert [pruned.shape(w)[0] for w in ("w1", "w2", "w3", "w4")] == [2, 3, 4, 2]
    assert pruned.shape("fc") == (3, 8)


def test_split_and_concat_of_halves(prune: Callable) -> None:
    pruned = prune(
        HEAD
        + """g (float[N,3,6,6] x) => (float[N,4,6,6] y)
        <float[16,3,1,1] w1, float[8,8,3,3] w2, float[4,24,1,1] w3>
        {
            a = Conv (x, w1)
            left, right = Split <axis = 1> (a)
            c = Conv <pads = [1, 1, 1, 1]> (right, w2)
            d = Add (c, right)
            e = Concat <axis = 1> (left, right, d)
            y = Conv (e, w3)
        }""",
        ratio=0.25,
    )
    assert (pruned.shape("w1")[0], pruned.shape("w2")[:2], pruned.shape("w3")[1]) == (12, (6, 6), 18)


def test_split_with_sizes_and_slices_that_others_share(prune: Callable) -> None:
    pruned = prune(
        HEAD
        + """g (float[N,3,6,6] x) => (float[N,4,6,6] y)
        <float[16,3,1,1] w1, float[8,3,1,1] w2, float[4,12,1,1] w3, float[4,8,1,1] w4,
         int64[2] sizes = {4, 12}, int64[1] four = {4}, int64[1] end = {12}, int64[1] one = {1}>
        {
            a = Conv (x, w1)
            p, q = Split <axis = 1> (a, sizes)
            b = Conv (x, w2)
            part = Slice (b, four, end, one)
            pq = Concat <axis = 1> (p, part)
            u = Conv (q, w3)
            v = Conv (pq, w4)
            y = Add (u, v)
        }""",
        ratio=0.5,
    )
    assert pruned.shape("w1")[0] == 8
    assert pruned.shape("w4")[1] == 4


def test_gather_of_channels_by_constant_indices(prune: Callable) -> None:
    pruned = prune(
        HEAD
        + """g (float[N,3,6,6] x) => (float[N,4,6,6] y)
        <float[8,3,1,1] w1, float[4,8,1,1] w2, float[4,8,1,1] w3, int64[8] order = {7, -2, 5, 4, 3, 2, 1, 0}>
        {
            a = Conv (x, w1)
            b = Gather <axis = 1> (a, order)
            u = Conv (a, w2)
            v = Conv (b, w3)
            y = Add (u, v)
        }""",
        ratio=0.5,
    )
    assert (pruned.shape("w1")[0], pruned.shape("w3")[1], pruned.shape("order")) == (4, 4, (4,))


def test_option_a_shortcut_pads_fewer_channels(prune: Callable) -> None:
    pruned = prune(
        HEAD
        + """g (float[N,3,8,8] x) => (float[N,8,4,4] y)
        <float[8,3,3,3] w1, float[16,8,3,3] w2, float[8,16,1,1] w3, int64[2] zeros = {0, 0},
         int64[2] ends = {9223372036854775807, 9223372036854775807}, int64[2] axes = {2, 3}, int64[2] steps = {2, 2},
         int64[8] pads = {0, 4, 0, 0, 0, 4, 0, 0}>
        {
            a = Conv <pads = [1, 1, 1, 1]> (x, w1)
            r = Relu (a)
            b = Conv <pads = [1, 1, 1, 1], strides = [2, 2]> (r, w2)
            s = Slice (r, zeros, ends, axes, steps)
            p = Pad (s, pads)
            t = Add (b, p)
            y = Conv (t, w3)
        }""",
        ratio=0.5,
    )
    assert [pruned.shape(w)[:2] for w in ("w1", "w2", "w3")] == [(4, 3), (8, 4), (8, 8)]


def test_flatten_of_images_into_gemm_and_back(prune: Callable) -> None:
    pruned = prune(
        HEAD
        + """g (float[N,3,4,4] x) => (float[N,2,4,4] y)
        <float[8,3,1,1] w1, float[128,10] fc1, float[10] b1, float[10,96] fc2, float[96] b2, float[2,6,1,1] w2,
         int64[4] back = {-1, 6, 4, 4}>
        {
            a = Conv (x, w1)
            f = Flatten (a)
            h = Gemm (f, fc1, b1)
            r = Relu (h)
            i = Gemm (r, fc2, b2)
            j = Reshape (i, back)
            y = Conv (j, w2)
        }""",
        ratio=0.5,
    )
    assert (pruned.shape("w1")[0], pruned.shape("fc1"), pruned.shape("fc2")) == (4, (64, 5), (5, 48))
    assert pruned.shape("w2")[1] == 3


def test_one_dimensional_convolutions_with_squeeze(prune: Callable) -> None:
    pruned = prune(
        HEAD
        + """g (float[N,3,16] x) => (float[N,4] y)
        <float[8,3,3] w1, float[8] slope, float[12,8,16] w2, float[12,4] fc, int64[1] last = {2}>
        {
            a = Conv <pads = [1, 1]> (x, w1)
            k = Unsqueeze (slope, one)
            r = PRelu (a, k)
            b = Conv (r, w2)
            c = Squeeze (b, last)
            y = MatMul (c, fc)
        }""".replace("int64[1] last = {2}", "int64[1] last = {2}, int64[1] one = {1}"),
        ratio=0.5,
    )
    assert (pruned.shape("slope"), pruned.shape("w2")[:2], pruned.shape("fc")) == ((4,), (6, 4), (6, 4))


def test_several_inputs_and_outputs(prune: Callable) -> None:
    pruned = prune(
        HEAD
        + """g (float[N,3,6,6] x, float[N,5] z) => (float[N,4,6,6] y, float[N,16] aux)
        <float[16,3,1,1] w1, float[5,16] fz, float[16,16] faux, float[4,16,1,1] w2, int64[2] ax = {2, 3}>
        {
            a = Conv (x, w1)
            b = MatMul (z, fz)
            c = Unsqueeze (b, ax)
            d = Add (a, c)
            e = ReduceMean <axes = [2, 3], keepdims = 0> (d)
            aux = MatMul (e, faux)
            y = Conv (d, w2)
        }""",
        ratio=0.5,
    )
    assert (pruned.shape("w1")[0], pruned.shape("fz"), pruned.shape("faux")) == (8, (5, 8), (8, 16))


def test_instance_normalization_of_channels_and_of_groups(prune: Callable) -> None:
    pruned = prune(
        HEAD
        + """g (float[N,3,4,4] x) => (float[N,4,4,4] y)
        <float[8,3,1,1] w1, float[8] s1, float[8] b1, float[12,8,1,1] w2, float[4] s2, float[4] b2,
         float[12,1,1] scale, float[4,12,1,1] w3, int64[3] groups = {0, 4, -1}, int64[4] back = {0, 12, 4, 4}>
        {
            a = Conv (x, w1)
            n = InstanceNormalization (a, s1, b1)
            c = Conv (n, w2)
            d = Reshape (c, groups)
            e = InstanceNormalization (d, s2, b2)
            f = Reshape (e, back)
            h = Mul (f, scale)
            y = Conv (h, w3)
        }""",
        ratio=0.5,
    )
    assert (pruned.shape("s1"), pruned.shape("w2")[:2]) == ((4,), (6, 4))
    assert (pruned.shape("s2"), pruned.shape("scale"), pruned.shape("w3")[1]) == ((2,), (6, 1, 1), 6)


def test_sub_pixels_leave_together(prune: Callable) -> None:
    pruned = prune(
        HEAD
        + """g (float[N,3,4,4] x) => (float[N,4,4,4] y)
        <float[24,3,1,1] w1, float[6,6,3,3] w2, float[4,24,1,1] w3>
        {
            a = Conv (x, w1)
            b = DepthToSpace <blocksize = 2> (a)
            c = Conv <pads = [1, 1, 1, 1]> (b, w2)
            d = SpaceToDepth <blocksize = 2> (c)
            y = Conv (d, w3)
        }""",
        ratio=0.5,
    )
    assert [pruned.shape(w)[:2] for w in ("w1", "w2", "w3")] == [(12, 3), (3, 3), (4, 12)]


def test_depth_to_space_in_column_row_depth_order(prune: Callable) -> None:
    pruned = prune(
        HEAD
        + """g (float[N,3,4,4] x) => (float[N,4,8,8] y) <float[24,3,1,1] w1, float[4,6,1,1] w2>
        {
            a = Conv (x, w1)
            b = DepthToSpace <blocksize = 2, mode = "CRD"> (a)
            y = Conv (b, w2)
        }""",
        ratio=0.5,
    )
    assert (pruned.shape("w1")[0], pruned.shape("w2")[1]) == (12, 3)


def test_attention_loses_whole_heads_and_the_normalised_width_stays(prune: Callable) -> None:
    pruned = prune(
        HEAD
        + """g (float[N,10,16] x) => (float[N,10,16] y)
        <float[16,32] wq, float[32] bq, float[16,32] wk, float[16,32] wv, float[32,16] wo, float[16] s, float[16] b,
         float[16,40] up, float[40,16] down, int64[4] heads = {0, 0, 4, 8}, int64[3] flat = {0, 0, 32}>
        {
            n = LayerNormalization (x, s, b)
            q = MatMul (n, wq)
            qb = Add (q, bq)
            k = MatMul (n, wk)
            v = MatMul (n, wv)
            qh = Reshape (qb, heads)
            kh = Reshape (k, heads)
            vh = Reshape (v, heads)
            qt = Transpose <perm = [0, 2, 1, 3]> (qh)
            kt = Transpose <perm = [0, 2, 3, 1]> (kh)
            vt = Transpose <perm = [0, 2, 1, 3]> (vh)
            w = MatMul (qt, kt)
            p = Softmax (w)
            o = MatMul (p, vt)
            ot = Transpose <perm = [0, 2, 1, 3]> (o)
            oc = Reshape (ot, flat)
            z = MatMul (oc, wo)
            r = Add (x, z)
            u = MatMul (r, up)
            e = Gelu_like (u)
            d = MatMul (e, down)
            y = Add (r, d)
        }""".replace("Gelu_like", "Tanh"),
        ratio=0.5,
    )
    assert {pruned.shape(w) for w in ("wq", "wk", "wv")} == {(16, 16)}
    assert (pruned.shape("wo"), pruned.shape("up"), pruned.shape("down")) == ((16, 16), (16, 20), (20, 16))
    assert pruned.shape("bq") == (16,)


def test_bodies_of_control_flow_shrink_inside(prune: Callable) -> None:
    pruned = prune(
        HEAD
        + """g (float[N,8] x, bool flag) => (float[N,4] y)
        <float[8,16] w1, float[16,12] w2, float[12,4] w3, float[16,4] w4>
        {
            a = MatMul (x, w1)
            y = If (flag) <
                then_branch = one () => (float[N,4] p) { b = MatMul (a, w2) c = Relu (b) p = MatMul (c, w3) },
                else_branch = two () => (float[N,4] q) { q = MatMul (a, w4) }
            >
        }""",
        ratio=0.5,
    )
    assert [pruned.shape(w) for w in ("w1", "w2", "w3", "w4")] == [(8, 8), (8, 6), (6, 4), (8, 4)]


def test_a_reduction_over_channels_pins(prune: Callable) -> None:
    pruned = prune(
        HEAD
        + """g (float[N,3,6,6] x) => (float[N,1,6,6] y, float[N,2,6,6] z)
        <float[8,3,1,1] w1, float[8,3,1,1] w2, float[2,8,1,1] w3>
        {
            a = Conv (x, w1)
            y = ReduceMax <axes = [1]> (a)
            b = Conv (x, w2)
            z = Conv (b, w3)
        }""",
        ratio=0.5,
    )
    assert (pruned.shape("w1")[0], pruned.shape("w2")[0]) == (8, 4)
    assert "a: is reduced along in ReduceMax 'y'" in pruned.reasons()


def test_quantised_weights_shrink_with_their_scales(prune: Callable) -> None:
    pruned = prune(
        HEAD
        + """g (float[N,3,6,6] x) => (float[N,2,6,6] y)
        <int8[8,3,1,1] w1, float[8] s1, int8[8] z1 = {0, 0, 0, 0, 0, 0, 0, 0}, int8[2,8,1,1] w2, float[2] s2,
         int8[2] z2 = {0, 0}, float sx = {0.05}, uint8 zx = {128}>
        {
            xq = QuantizeLinear (x, sx, zx)
            xd = DequantizeLinear (xq, sx, zx)
            wd = DequantizeLinear <axis = 0> (w1, s1, z1)
            a = Conv (xd, wd)
            r = Relu (a)
            vd = DequantizeLinear <axis = 0> (w2, s2, z2)
            y = Conv (r, vd)
        }""",
        ratio=0.5,
    )
    assert (pruned.shape("w1")[0], pruned.shape("s1"), pruned.shape("z1"), pruned.shape("w2")[1]) == (4, (4,), (4,), 4)


def test_attributes_of_old_opsets_are_stated_anew(prune: Callable) -> None:
    pruned = prune(
        """<ir_version: 8, opset_import: ["" : 9]>
        g (float[N,3,6,6] x) => (float[N,4,6,6] y)
        <float[16,3,1,1] w1, float[4,20,1,1] w2>
        {
            a = Conv (x, w1)
            l, r = Split <axis = 1, split = [4, 12]> (a)
            s = Slice <axes = [1], starts = [4], ends = [12]> (r)
            p = Pad <pads = [0, 2, 0, 0, 0, 2, 0, 0]> (l)
            e = Concat <axis = 1> (s, p, l)
            y = Conv (e, w2)
        }""",
        ratio=0.5,
    )
    assert pruned.shape("w1")[0] < 16


def test_a_weight_in_a_constant_node(prune: Callable) -> None:
    pruned = prune(
        HEAD
        + """g (float[N,4] x) => (float[N,2] y) <float[4,6] w1, float[6,2] w2>
        {
            a = MatMul (x, w1)
            c = Constant <value = float[6] {1.0, 2.0, 3.0, 4.0, 5.0, 6.0}> ()
            b = Add (a, c)
            y = MatMul (b, w2)
        }""",
        ratio=0.5,
    )
    assert pruned.shape("c") == (3,)


def test_rotary_embeddings_leave_heads_and_their_tables_whole(prune: Callable) -> None:
    def rotary(name: str) -> str:
        return f"""{name}0 = MatMul (x, w{name})
            {name}1 = Reshape ({name}0, heads)
            {name}a = Slice ({name}1, zero, two, three)
            {name}b = Slice ({name}1, two, four, three)
            {name}n = Neg ({name}b)
            {name}r = Concat <axis = 3> ({name}n, {name}a)
            {name}c = Mul ({name}1, cosine)
            {name}s = Mul ({name}r, sine)
            {name} = Add ({name}c, {name}s)"""

    pruned = prune(
        HEAD
        + f"""g (float[N,6,8] x) => (float[N,6,8] y)
        <float[8,16] wq, float[8,16] wk, float[8,16] wv, float[16,8] wo, float[1,6,1,4] cosine, float[1,6,1,4] sine,
         int64[4] heads = {{0, 0, 4, 4}}, int64[3] flat = {{0, 0, -1}},
         int64[1] zero = {{0}}, int64[1] two = {{2}}, int64[1] four = {{4}}, int64[1] three = {{3}}>
        {{
            {rotary("q")}
            {rotary("k")}
            v0 = MatMul (x, wv)
            v = Reshape (v0, heads)
            qt = Transpose <perm = [0, 2, 1, 3]> (q)
            kt = Transpose <perm = [0, 2, 3, 1]> (k)
            vt = Transpose <perm = [0, 2, 1, 3]> (v)
            s = MatMul (qt, kt)
            p = Softmax (s)
            o = MatMul (p, vt)
            ot = Transpose <perm = [0, 2, 1, 3]> (o)
            oc = Reshape (ot, flat)
            y = MatMul (oc, wo)
        }}""",
        ratio=0.5,
    )
    assert {pruned.shape(w) for w in ("wq", "wk", "wv", "wo")} == {(8, 8)}
    assert pruned.shape("cosine") == (1, 6, 1, 4)


def test_group_normalization_loses_whole_groups(prune: Callable) -> None:
    pruned = prune(
        """<ir_version: 10, opset_import: ["" : 21]>
        g (float[N,3,4,4] x) => (float[N,2,4,4] y) <float[12,3,1,1] w1, float[12] s, float[12] b, float[2,12,1,1] w2>
        {
            a = Conv (x, w1)
            n = GroupNormalization <num_groups = 4> (a, s, b)
            y = Conv (n, w2)
        }""",
        ratio=0.25,
    )
    assert (pruned.shape("w1")[0], pruned.shape("s"), pruned.shape("w2")[1]) == (9, (9,), 9)
    assert next(n.attrs["num_groups"] for n in pruned.model.graph.nodes if n.name == "n") == 3


def test_sizes_that_only_a_run_shows_are_observed(prune: Callable) -> None:
    pruned = prune(
        """<ir_version: 8, opset_import: ["" : 17, "com.microsoft" : 1]>
        g (float[N,3,4,4] x) => (float[N,2,4,4] y) <float[8,3,1,1] w1, float[8,8,1,1] w2, float[2,8,1,1] w3>
        {
            a = Conv (x, w1)
            e = com.microsoft.Gelu (a)
            c = Conv (e, w2)
            r = Relu (c)
            y = Conv (r, w3)
        }""",
        ratio=0.5,
    )
    assert [pruned.shape(w)[:2] for w in ("w1", "w2", "w3")] == [(4, 3), (4, 4), (2, 4)]


def test_a_loop_shrinks_inside(prune: Callable) -> None:
    pruned = prune(
        HEAD
        + """g (float[N,8] x, int64 trips) => (float[N,8] y) <float[8,16] w1, float[16,8] w2, bool go = {1}>
        {
            y = Loop (trips, go, x) <
                body = b (int64 i, bool c, float[N,8] s) => (bool c2, float[N,8] s2)
                    { c2 = Identity (c) h = MatMul (s, w1) r = Relu (h) s2 = MatMul (r, w2) }
            >
        }""",
        ratio=0.5,
    )
    assert (pruned.shape("w1"), pruned.shape("w2")) == ((8, 8), (8, 8))


def test_an_embedding_loses_width_and_no_rows(prune: Callable) -> None:
    pruned = prune(
        HEAD
        + """g (int64[N,5] ids) => (float[N,5,2] y) <float[30,16] table, float[16,2] w>
        {
            e = Gather (table, ids)
            y = MatMul (e, w)
        }""",
        ratio=0.5,
    )
    assert (pruned.shape("table"), pruned.shape("w")) == ((30, 8), (8, 2))


def test_indices_of_a_pool_pin_its_channels(prune: Callable) -> None:
    pruned = prune(
        HEAD
        + """g (float[N,3,4,4] x) => (float[N,2,2,2] y, int64[N,8,2,2] places)
        <float[8,3,1,1] w1, float[8,8,1,1] w2, float[2,8,1,1] w3>
        {
            a = Conv (x, w1)
            p, places = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (a)
            b = Conv (p, w2)
            y = Conv (b, w3)
        }""",
        ratio=0.5,
    )
    assert [pruned.shape(w)[:2] for w in ("w1", "w2", "w3")] == [(8, 3), (4, 8), (2, 4)]


def test_unknown_channels_of_an_input_pin_only_what_they_touch(prune: Callable) -> None:
    pruned = prune(
        HEAD
        + """g (float[N,C,H,W] x) => (float[N,2,H,W] y) <float[8,3,1,1] w1, float[2,8,1,1] w2>
        {
            a = Conv (x, w1)
            b = Relu (a)
            y = Conv (b, w2)
        }""",
        ratio=0.5,
    )
    assert (pruned.shape("w1")[:2], pruned.shape("w2")[:2]) == ((4, 3), (2, 4))


def test_an_operator_without_a_rule_pins_what_reaches_it(prune: Callable) -> None:
    pruned = prune(
        HEAD
        + """g (float[N,4] x) => (float[N,2] y) <float[4,8] w1, float[8,8] w2, float[8,2] w3, int64[1] k = {8}>
        {
            a = MatMul (x, w1)
            t, i = TopK (a, k)
            b = MatMul (t, w2)
            y = MatMul (b, w3)
        }""",
        ratio=0.5,
    )
    assert [pruned.shape(w) for w in ("w1", "w2", "w3")] == [(4, 8), (8, 4), (4, 2)]
    assert "a: reaches TopK 't', an operator without a pruning rule" in pruned.reasons()


def test_a_shape_constant_that_layers_share_is_changed_for_those_that_shrink(prune: Callable) -> None:
    pruned = prune(
        HEAD
        + """g (float[N,3,4,4] x, float[N,8,16] z) => (float[N,2,4,4] y, float[N,8,4,4] v)
        <float[8,3,1,1] w1, float[8,3,1,1] w2, float[2,16,1,1] w3,
         int64[3] rows = {0, 8, 16}, int64[4] image = {0, 8, 4, 4}>
        {
            a = Conv (x, w1)
            b = Conv (x, w2)
            ar = Reshape (a, rows)
            br = Reshape (b, rows)
            at = Tanh (ar)
            bt = Tanh (br)
            ai = Reshape (at, image)
            bi = Reshape (bt, image)
            v = Reshape (z, image)
            c = Concat <axis = 1> (ai, bi)
            y = Conv (c, w3)
        }""",
        ratio=0.5,
    )
    values = {c.name: c.values.tolist() for c in pruned.model.constants() if c.values.dtype.kind == "i"}
    assert values == {"rows": [0, 4, 16], "image": [0, 8, 4, 4], "image_1": [0, 4, 4, 4]}
