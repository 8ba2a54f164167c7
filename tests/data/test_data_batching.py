import numpy as np
import pytest

from zc.data.batching import batching, require_tensors
from zc.errors import ZcError
from zc.ir.spec import TensorSpec


def test_the_first_axis_of_the_first_input_is_the_batch(spec):
    assert batching([spec("x", "float32", "N", 3, 8, 8)]).axes == {"x": 0}
    assert batching([spec("x", "float32", None, 3)]).size is None
    assert batching([spec("x", "float32", 4, 3)]).size == 4


def test_a_recurrent_state_has_the_batch_where_its_name_stands(spec):
    inputs = [spec("x", "float32", "batch", "T"), spec("sr", "int64"), spec("state", "float32", 2, "batch", 128)]
    assert batching(inputs).axes == {"x": 0, "sr": None, "state": 1}


def test_a_fixed_batch_is_found_on_another_axis_by_its_size(spec):
    found = batching([spec("x", "float32", 1, 576), spec("state", "float32", 2, 1, 128)])
    assert (found.axes, found.size) == ({"x": 0, "state": 1}, 1)


def test_a_dimension_named_batch_wins_over_the_first(spec):
    assert batching([spec("x", "float32", "sequence", "batch", 8)]).axes == {"x": 1}


def test_a_fixed_input_beside_a_dynamic_batch_is_the_same_for_all_rows(spec):
    assert batching([spec("x", "float32", "N", 8), spec("limits", "float32", 2)]).axes == {"x": 0, "limits": None}


def test_batches_of_different_names_are_one_batch(spec):
    assert batching([spec("a", "int64", "unk__1", 8), spec("b", "int64", "unk__2", 8)]).axes == {"a": 0, "b": 0}


def test_a_batch_that_is_fixed_to_nothing_is_named(spec):
    with pytest.raises(ZcError, match="input 'x' is fixed to a batch of 0 rows"):
        batching([spec("x", "float32", 0, 3)])
    assert batching([spec("x", "float32", 1, 3), spec("past", "float32", 1, 0, 8)]).size == 1


def test_an_input_that_is_no_tensor_cannot_be_fed():
    with pytest.raises(ZcError, match="input 's' is not a tensor"):
        require_tensors([TensorSpec("x", np.dtype("float32"), (1,)), TensorSpec("s", None, None)])
