"""The training engine: gradients written by hand, fused optimizers, and what a step costs."""

import inspect
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from skorch.callbacks import Callback, GradientNormClipping
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

from sklearn_taskres import TaskResClassifier
from sklearn_taskres._classifiers.taskres import taskres_gradient, taskres_logits
from sklearn_taskres._device import product_precision
from sklearn_taskres._formulas import Formula, unit
from sklearn_taskres._training import train
from sklearn_taskres._training.optimizers import without_records


def step_inputs(
    n_rows, n_classes, d, *, n_candidates=None, learned=False, seed=0, dtype=torch.float64
):
    """Arguments of a gradient, as tensors: a batch, its weights, and the formula's arrays."""
    rng = np.random.default_rng(seed)
    t = rng.normal(scale=0.44, size=(n_classes, d))
    stack = () if n_candidates is None else (n_candidates,)
    arrays = {
        "z": unit(rng.normal(size=(n_rows, d))),
        "loss_weight": rng.uniform(0, 3, n_rows) / n_rows,
        "t": t,
        "x": rng.normal(scale=0.2, size=(*stack, *t.shape)),
        "alpha": rng.uniform(0.1, 2, size=(*stack, 1, 1)),
    }
    tensors = {name: torch.tensor(array, dtype=dtype) for name, array in arrays.items()}
    tensors["alpha"].requires_grad_(learned)
    return {**tensors, "y": torch.tensor(rng.integers(n_classes, size=n_rows))}


def gradient_by_hand(z, y, loss_weight, **arrays):
    """Loss and gradients as the hand-written derivative gives them, without a graph."""
    with torch.no_grad():
        loss, logits, gradients = taskres_gradient(z, y, loss_weight, **arrays)
    assert_allclose(logits, taskres_logits(z, **arrays).detach(), rtol=1e-9, atol=1e-9)
    return loss, gradients


def by_autograd(z, y, loss_weight, *, t, alpha, scale, x):
    """Loss of each candidate, and gradients as autograd derives them from the formula."""
    learned = {"x": x, "alpha": alpha} if alpha.requires_grad else {"x": x}
    learned = {name: tensor.detach().clone().requires_grad_() for name, tensor in learned.items()}
    logits = taskres_logits(z, **{"t": t, "alpha": alpha, "scale": scale, **learned})
    loss = torch.stack(
        [
            (loss_weight * torch.nn.functional.cross_entropy(of_one, y, reduction="none")).sum()
            for of_one in logits.reshape(-1, *logits.shape[-2:])
        ]
    ).reshape(x.shape[:-2])
    gradients = torch.autograd.grad(loss.sum(), list(learned.values()))
    return loss.detach(), dict(zip(learned, gradients, strict=True))


@settings(max_examples=60, deadline=None)
@given(
    n_rows=st.integers(1, 12),
    n_classes=st.integers(2, 9),
    d=st.integers(1, 17),
    n_candidates=st.none() | st.integers(1, 4),
    scale=st.floats(0.1, 120),
    learned=st.booleans(),
    no_residual=st.booleans(),
    zero_row=st.booleans(),
    seed=st.integers(0, 10**6),
)
def test_the_gradient_by_hand_is_that_of_the_formula(
    n_rows, n_classes, d, n_candidates, scale, learned, no_residual, zero_row, seed
):
    """Loss and gradients equal autograd's, for any shape, weights, and a class at the origin."""
    sizes = {"n_candidates": n_candidates, "learned": learned, "seed": seed}
    inputs = step_inputs(n_rows, n_classes, d, **sizes)
    if no_residual:
        inputs["x"].zero_()
    if zero_row:
        inputs["t"][0], inputs["x"][..., 0, :] = 0, 0
    loss, gradients = gradient_by_hand(scale=scale, **inputs)
    expected_loss, expected = by_autograd(scale=scale, **inputs)
    assert loss.shape == expected_loss.shape == inputs["x"].shape[:-2]
    assert_allclose(loss, expected_loss, rtol=1e-10, atol=1e-12)
    assert gradients.keys() == expected.keys()
    for name, gradient in gradients.items():
        bound = 1e-12 * scale * (1 + 1 / _smallest_norm(inputs)) ** 2
        assert_allclose(gradient, expected[name], rtol=1e-9, atol=bound)


def _smallest_norm(inputs):
    norms = (inputs["t"] + inputs["alpha"] * inputs["x"]).detach().norm(dim=-1)
    return float(norms[norms > 0].min()) if (norms > 0).any() else 1.0


@pytest.mark.parametrize("learned", [False, True], ids=["fixed alpha", "learned alpha"])
def test_the_gradient_by_hand_is_the_slope_of_the_loss(learned):
    """Central differences of the loss, which know nothing of autograd."""
    inputs = {**step_inputs(5, 4, 3, learned=learned), "scale": 7.0}
    _, gradients = gradient_by_hand(**inputs)
    for name, gradient in gradients.items():
        for place in np.ndindex(*gradient.shape):
            step = torch.zeros_like(gradient)
            step[place] = 1e-6
            ahead, _ = gradient_by_hand(**{**inputs, name: inputs[name].detach() + step})
            back, _ = gradient_by_hand(**{**inputs, name: inputs[name].detach() - step})
            assert_allclose((ahead - back) / 2e-6, gradient[place], rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("learned", [False, True], ids=["fixed alpha", "learned alpha"])
def test_the_gradient_by_hand_leaves_its_arguments_alone(learned):
    """What is computed in place is its own memory."""
    inputs = step_inputs(5, 4, 3, learned=learned)
    before = {name: value.detach().clone() for name, value in inputs.items()}
    _, gradients = gradient_by_hand(scale=100.0, **inputs)
    for name, value in inputs.items():
        assert_array_equal(value.detach(), before[name])
        assert all(gradient is not value for gradient in gradients.values())


def test_bfloat16_products_bend_a_float32_gradient_a_little():
    """The products are in the lower precision; the sums are not, and float64 is left alone."""
    inputs = {**step_inputs(64, 10, 32, dtype=torch.float32), "scale": 20.0}
    wide = {**step_inputs(64, 10, 32), "scale": 20.0}
    (loss, _, full), (_, _, full_wide) = taskres_gradient(**inputs), taskres_gradient(**wide)
    with product_precision(torch.device("cpu"), "bfloat16"):
        (low_loss, _, low), (_, _, low_wide) = taskres_gradient(**inputs), taskres_gradient(**wide)
    assert low_loss.dtype == low["x"].dtype == torch.float32
    assert 0 < (low["x"] - full["x"]).norm() / full["x"].norm() < 0.02
    assert_allclose(low_loss, loss, rtol=0.02)
    assert_array_equal(low_wide["x"], full_wide["x"])


def problem(n_rows=48, n_classes=4, d=6, dtype=np.float64):
    """Image rows, classes, and class embeddings."""
    rng = np.random.default_rng(0)
    t = rng.normal(scale=0.44, size=(n_classes, d))
    y = np.arange(n_rows) % n_classes
    X = t[y] + rng.normal(scale=0.4, size=(n_rows, d))
    return X.astype(dtype), y, t.astype(dtype)


def run(X, y, t, *, learn_alpha=False, rng=0, **params):
    """Train a residual on unit rows, 10 epochs unless told."""
    learned, constants = {"x": np.zeros_like(t)}, {"t": t, "scale": 30.0}
    constants["alpha"] = np.full((1, 1), 0.5)
    if learn_alpha:
        learned["alpha"] = np.asarray(constants.pop("alpha"))
    given = {k: params.pop(k) for k in ("prepare", "penalty", "gradient") if k in params}
    formula = Formula(taskres_logits, learned, constants, **{"prepare": unit, **given})
    params = {"lr": 1e-2, "max_epochs": 10, **params}
    return train(formula, X, y, rng=np.random.RandomState(rng), **params)


def assert_same(one, other, atol):
    for name, array in one.parameters.items():
        assert_allclose(array, other.parameters[name], rtol=0, atol=atol)
    assert len(one.history) == len(other.history)
    for a, b in zip(one.history, other.history, strict=True):
        assert a.keys() == b.keys()
        assert_allclose(list(a.values()), list(b.values()), rtol=0, atol=atol)


@pytest.mark.parametrize("learn_alpha", [False, True], ids=["fixed alpha", "learned alpha"])
@pytest.mark.parametrize("batch_size", [256, 10], ids=["full batch", "mini-batches"])
@pytest.mark.parametrize("optimizer", ["Adam", "AdamW", "SGD"])
def test_training_is_the_same_with_a_gradient_by_hand(optimizer, batch_size, learn_alpha):
    """Parameters, losses and learning rates are autograd's, under every optimizer."""
    X, y, t = problem()
    weight = np.random.default_rng(1).uniform(0.5, 3, len(y))
    params = {"optimizer": optimizer, "batch_size": batch_size, "learn_alpha": learn_alpha}
    autograd = run(X, y, t, sample_weight=weight, **params)
    by_hand = run(X, y, t, sample_weight=weight, gradient=taskres_gradient, **params)
    assert np.abs(autograd.parameters["x"]).max() > 1e-3
    assert_same(by_hand, autograd, atol=1e-10)


@pytest.mark.parametrize(
    ("optimizer", "params"),
    [("Adam", {"weight_decay": 0.1}), ("AdamW", {"weight_decay": 0.1, "eps": 1e-4}),
     ("SGD", {"momentum": 0.9, "weight_decay": 0.1})],
)  # fmt: skip
def test_fused_optimizers_change_nothing(optimizer, params):
    """The fused kernel takes the steps of the plain one, alpha's own array included."""
    X, y, t = problem()
    params = {"optimizer": optimizer, "learn_alpha": True, "max_epochs": 50, **params}
    assert_same(run(X, y, t, **params), run(X, y, t, fused=False, **params), atol=1e-10)


OPTIMIZERS = pytest.mark.parametrize(
    ("optimizer", "params"),
    [(torch.optim.Adam, {"weight_decay": 0.1, "amsgrad": True}),
     (torch.optim.AdamW, {"weight_decay": 0.1, "fused": True}),
     (torch.optim.SGD, {"momentum": 0.9, "nesterov": True})],
)  # fmt: skip


@OPTIMIZERS
def test_optimizers_without_records_take_the_steps_of_torch(optimizer, params):
    """Arrays are equal to the bit, with one that has no gradient, and one frozen for a while."""
    generator = torch.Generator().manual_seed(0)
    start = [torch.randn(3, 4, generator=generator) for _ in range(3)]
    learned = []
    for make in (optimizer, without_records(optimizer)):
        arrays = [array.clone().requires_grad_() for array in start]
        taken = make(arrays, lr=0.1, **params)
        for step in range(8):

            def loss(arrays=arrays, step=step):
                taken.zero_grad()  # noqa: B023 (called at once)
                moved = arrays[:1] if step < 4 else arrays[:2]
                loss = sum((array * (step + 1)).sin().sum() for array in moved)
                loss.backward()
                return loss

            with torch.set_grad_enabled(step != 2):
                assert taken.step(loss).ndim == 0
        learned.append(torch.stack(arrays).detach().numpy())
    assert_array_equal(*learned)
    assert (learned[0][:2] != np.stack(start)[:2]).all()
    assert_array_equal(learned[0][2], start[2])


@OPTIMIZERS
def test_optimizers_without_records_refuse_hooks_and_leave_torch_as_it_is(optimizer, params):
    """torch's own class still calls hooks after one without records was made."""
    array = torch.ones(2, requires_grad=True)
    take_step = torch.no_grad()(inspect.unwrap(optimizer.step))

    class Fresh(optimizer):  # of which no other test has made one
        def step(self, closure=None):
            return take_step(self, closure)

    lean = without_records(Fresh)([array], lr=0.1, **params)
    for register in (lean.register_step_pre_hook, lean.register_step_post_hook):
        with pytest.raises(NotImplementedError, match="act in a callback instead"):
            register(print)
    called = []
    plain = Fresh([array], lr=0.1, **params)
    plain.register_step_pre_hook(lambda *args: called.append(args))
    array.sum().backward()
    plain.step()
    assert len(called) == 1


@pytest.mark.parametrize("gradient", [None, taskres_gradient], ids=["autograd", "by hand"])
def test_steps_leave_no_records_of_the_optimizer(gradient):
    """They take longer than what they record."""
    X, y, t = problem()
    with torch.profiler.profile() as profile:
        run(X, y, t, gradient=gradient)
    names = [event.name for event in profile.events()]
    assert names
    assert not [name for name in names if name.startswith("Optimizer.")]


class Watcher(Callback):
    """Keeps what a user's callback can see, uncopied; on the class, since training clones it."""

    seen: list = []  # noqa: RUF012
    losses: list = []  # noqa: RUF012

    def on_grad_computed(self, net, named_parameters, batch, **kwargs):
        self.seen.append({"z": batch[0]["z"], **{name: p.grad for name, p in named_parameters}})

    def on_batch_end(self, net, batch, y_pred, loss, **kwargs):
        losses = torch.nn.functional.cross_entropy(y_pred, batch[1], reduction="none")
        mean = (batch[0]["loss_weight"] * losses).sum()
        assert_allclose(mean.item(), loss.item(), rtol=1e-10)
        self.losses.append(loss.item())
        assert net.optimizer_.defaults["fused"]


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_users_callbacks_see_batches_and_gradients(device):
    """The hand-written gradient shows callbacks all that autograd would, and they may keep it."""
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("this machine has no cuda")
    X, y, t = problem()
    seen = []
    for gradient in (None, taskres_gradient):
        Watcher.seen.clear()
        Watcher.losses.clear()
        params = {"learn_alpha": True, "batch_size": 10, "device": device, "gradient": gradient}
        run(X, y, t, callbacks=[Watcher()], **params)
        assert len(Watcher.losses) == 40
        seen.append(list(Watcher.seen))
    assert len(seen[0]) == len(seen[1]) == 40
    assert len({step["z"].data_ptr() for steps in seen for step in steps}) == 80
    for autograd, by_hand in zip(*seen, strict=True):
        assert autograd.keys() == by_hand.keys() == {"x", "alpha", "z"}
        for name, gradient in autograd.items():
            assert_allclose(by_hand[name].cpu(), gradient.cpu(), rtol=0, atol=1e-10)


def test_users_callbacks_may_change_the_gradient():
    """Clipping acts between the gradient and the step, as it does under autograd."""
    X, y, t = problem()
    params = {"optimizer": "SGD", "callbacks": [GradientNormClipping(0.01)]}
    clipped = run(X, y, t, gradient=taskres_gradient, **params)
    assert_same(clipped, run(X, y, t, **params), atol=1e-12)
    free = run(X, y, t, gradient=taskres_gradient, optimizer="SGD")
    assert np.abs(clipped.parameters["x"]).max() < 0.5 * np.abs(free.parameters["x"]).max()


def test_a_gradient_by_hand_knows_no_penalty():
    """The two together would silently leave the penalty out."""
    X, y, t = problem()
    with pytest.raises(ValueError, match="may not go with a penalty"):
        run(X, y, t, gradient=taskres_gradient, penalty=lambda **_: 0)


def test_a_step_is_two_matrix_products():
    """Training asks for 4·B·K·D operations per step, and for no others of that order."""
    X, y, t = problem()
    with FlopCounterMode(display=False) as counter:
        run(X, y, t, gradient=taskres_gradient, batch_size=16, max_epochs=5)
    assert counter.get_total_flops() == 5 * 3 * 4 * 16 * t.size


class Calls(TorchFunctionMode):
    """Names of the methods of tensors that are called in the block, those asked for."""

    def __init__(self, *names):
        super().__init__()
        self.names, self.seen = names, []

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function in (getattr(torch.Tensor, name) for name in self.names):
            self.seen.append(function.__name__)
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("schedule_step", ["epoch", "batch"])
@pytest.mark.parametrize("gradient", [None, taskres_gradient], ids=["autograd", "by hand"])
def test_the_loss_leaves_the_device_once_an_epoch(gradient, schedule_step):
    """Steps do not wait for their figures, whatever the schedule counts."""
    X, y, t = problem()
    with Calls("item", "tolist", "__float__", "__bool__") as calls:
        trained = run(X, y, t, gradient=gradient, batch_size=10, schedule_step=schedule_step)
    assert calls.seen == ["tolist"] * len(trained.history) == ["tolist"] * 10


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("streamed", [False, True], ids=["in memory", "in a file"])
def test_rows_for_bfloat16_products_come_in_that(dtype, streamed, tmp_path):
    """The result is that of rows which each product lowers for itself; float64 stays as it is."""
    X, y, t = problem(dtype=dtype)
    X, seen = in_a_file(X, tmp_path) if streamed else X, []

    def lowered_by_the_product(z, *args, **arrays):
        seen.append(z.dtype)
        return taskres_gradient(z.to(arrays["t"].dtype), *args, **arrays)

    params = {"batch_size": 10, "precision": "bfloat16"}
    expected = run(X, y, t, gradient=lowered_by_the_product, **params)
    assert set(seen) == {torch.bfloat16 if dtype == np.float32 else torch.float64}
    trained = run(X, y, t, gradient=taskres_gradient, **params)
    assert_array_equal(trained.parameters["x"], expected.parameters["x"])
    assert trained.history == expected.history


def in_a_file(array, folder):
    """Map a copy of an array in a file, read-only."""
    np.save(folder / "X.npy", array)
    return np.load(folder / "X.npy", mmap_mode="r")


@pytest.mark.parametrize("batch_size", [256, 10], ids=["full batch", "mini-batches"])
@pytest.mark.parametrize("n_views", [None, 3], ids=["no views", "views"])
def test_a_memory_map_trains_as_an_array_does(tmp_path, n_views, batch_size):
    """Rows read batch by batch give the same bits, views drawn alike."""
    X, y, t = problem(dtype=np.float32)
    if n_views:
        noise = np.random.default_rng(1).normal(size=(len(y), n_views, X.shape[1]))
        X = (X[:, None] + 0.2 * noise).astype(np.float32)
    mapped = np.asarray(in_a_file(X, tmp_path))[:]  # as scikit-learn's validation leaves it
    params = {"batch_size": batch_size, "gradient": taskres_gradient}
    in_memory = run(X, y, t, **params)
    assert_same(run(mapped, y, t, **params), in_memory, atol=0)
    draws_differ = run(X, y, t, rng=1, **params).history != in_memory.history
    assert draws_differ == (n_views is not None or batch_size < len(y))
    half = X.astype(np.float16)
    assert_same(run(half, y, t, **params), run(half.astype(np.float32), y, t, **params), atol=0)


def test_rows_of_a_memory_map_are_read_by_the_batch(tmp_path):
    """`prepare` never sees more rows of a map than a batch has, and float32 ones."""
    X, y, t = problem(dtype=np.float16)
    sizes = []

    def prepare(rows):
        assert rows.dtype == np.float32
        sizes.append(len(rows))
        return unit(rows)

    run(in_a_file(X, tmp_path), y, t.astype(np.float32), prepare=prepare, batch_size=10)
    assert sizes == [10] * 4 * 10


def as_they_are(rows):
    """Rows that the formula needs no change of."""
    return rows


@pytest.mark.parametrize("order", ["C", "F", "reversed", "read-only"])
def test_any_layout_of_x_trains_alike_and_stays_as_it_was(order):
    """Rows are shared with torch if they can be, and copied if they cannot."""
    X, y, t = problem()
    laid_out = np.asfortranarray(X) if order == "F" else X.copy()
    if order == "reversed":
        laid_out = X[::-1].copy()[::-1]
    laid_out.flags.writeable = order != "read-only"
    assert_same(
        run(laid_out, y, t, prepare=as_they_are), run(X, y, t, prepare=as_they_are), atol=1e-12
    )
    assert_array_equal(laid_out, X)


def test_the_text_residual_trains_without_a_graph():
    """TaskResClassifier takes the hand-written gradient for text and autograd for images."""
    X, y, t = problem()
    with Calls("backward") as calls:
        TaskResClassifier(t, max_epochs=3).fit(X, y)
        assert calls.seen == []
        TaskResClassifier(t, max_epochs=3, residual="both").fit(X, y)
    assert calls.seen == ["backward"] * 3


@pytest.mark.parametrize(("width", "expected"), [(2**14, 1), (3 * 2**15, 3), (2**18, 4)])
def test_small_products_take_few_threads(width, expected):
    """A fit computes with as many threads as its products are worth, and sets torch's back."""
    X, y, t = problem(n_rows=32, n_classes=2, d=width)  # a thread per 2²¹ multiplications
    seen = []

    def gradient(*args, **kwargs):
        seen.append(torch.get_num_threads())
        return taskres_gradient(*args, **kwargs)

    before = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        run(X, y, t, gradient=gradient, max_epochs=2, device="cpu")
        assert torch.get_num_threads() == 4
        assert seen == [expected] * 2
        with ThreadPoolExecutor(1) as pool:  # threads of others are theirs
            pool.submit(run, X, y, t, gradient=gradient, max_epochs=1, device="cpu").result()
        assert seen[2:] == [4]
    finally:
        torch.set_num_threads(before)


def test_auto_lowers_products_of_large_classifiers(feign_cpu):
    """If the device has units for it, and the gradient's sums are known to be in float32."""
    feign_cpu(amx_bf16=True)
    how = {"gradient": taskres_gradient, "device": "cpu"}
    X, y, t = problem(dtype=np.float32)
    assert_same(run(X, y, t, **how), run(X, y, t, precision="float32", **how), atol=0)
    X, y, t = problem(n_rows=128, n_classes=64, d=512, dtype=np.float32)
    full = run(X, y, t, precision="float32", **how)
    lowered = run(X, y, t, **how).parameters["x"]
    by_name = run(X, y, t, precision="bfloat16", **how).parameters["x"]
    assert_array_equal(lowered, by_name)
    assert not np.array_equal(lowered, full.parameters["x"])
    without = {"device": "cpu"}  # a gradient
    assert_same(run(X, y, t, **without), run(X, y, t, precision="float32", **without), atol=0)


@pytest.mark.parametrize(("n_classes", "is_lowered"), [(63, False), (64, True)])
def test_auto_lowers_products_from_64_classes_on(feign_cpu, n_classes, is_lowered):
    """On a CPU the documented 32 768 elements, 64 classes of 512, are lowered, and no fewer."""
    feign_cpu(amx_bf16=True)
    X, y, t = problem(n_rows=2 * n_classes, n_classes=n_classes, d=512, dtype=np.float32)
    how = {"gradient": taskres_gradient, "device": "cpu", "max_epochs": 1}
    actual, full = (run(X, y, t, precision=p, **how).parameters["x"] for p in ("auto", "float32"))
    assert np.array_equal(actual, full) != is_lowered
