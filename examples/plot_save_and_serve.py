"""
Save a model and serve its predictions
======================================

A fitted model is a few small arrays and no network. If the images have been embedded already, a
process that loads it predicts with NumPy alone. If not, an inference engine embeds them: either way
the process answers within a second or two of its start, and never imports torch.
"""

# %%
# Train, and save
# ---------------
# The whole pipeline takes images. Its last step alone takes embeddings.

import io
import json
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import joblib
import matplotlib.pyplot as plt
import numpy as np
import skops.io
from PIL import Image

import sklearn_taskres
from sklearn_taskres import load_digit_images, make_taskres_pipeline, sample_few_shot

images, y, names = load_digit_images()
images, y = images[:500], y[:500]
train = sample_few_shot(y, 8, random_state=0)
model = make_taskres_pipeline("glyph-clip", class_names=names, random_state=0)
model.fit(images[train], y[train])

temporary = tempfile.TemporaryDirectory()
folder = Path(temporary.name)
joblib.dump(model, folder / "pipeline.joblib")
joblib.dump(model["taskres"], folder / "classifier.joblib")

# %%
# Exchange
# --------
# A joblib file can run code when it is loaded: load only your own. A skops file cannot. It names
# the types that it holds, and whoever loads it says which are trusted. Compress it: skops spells
# out the training history in long words.

skops.io.dump(model["taskres"], folder / "classifier.skops", compression=zipfile.ZIP_DEFLATED)
types = skops.io.get_untrusted_types(file=folder / "classifier.skops")
print("types to trust:", *types, sep="\n  ")
assert all(name.startswith("sklearn_taskres.") for name in types)
exchanged = skops.io.load(folder / "classifier.skops", trusted=types)

X = model["clip"].transform(images)
assert np.array_equal(exchanged.predict_proba(X), model["taskres"].predict_proba(X))

# %%
# Serve embeddings
# ----------------
# If images are embedded elsewhere, a fresh process needs the classifier alone, and no torch.

np.save(folder / "embeddings.npy", X)
CLIENT = """
import sys, joblib, numpy
print(*joblib.load(sys.argv[1]).predict(numpy.load(sys.argv[2])))
assert "torch" not in sys.modules
"""
command = [sys.executable, "-c", CLIENT, folder / "classifier.joblib", folder / "embeddings.npy"]
begun = time.perf_counter()
done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
embedding_seconds = time.perf_counter() - begun
assert done.stdout.split() == [str(label) for label in model.predict(images)]
print(f"{len(y)} digits from embeddings, without torch: {embedding_seconds:.1f} s")

# %%
# Serve images over HTTP
# ----------------------
# An inference engine computes the image tower without torch (``pip install
# "sklearn-taskres[onnx]"``). `fit` converts the tower and keeps it in the cache folder, from which
# the server takes it. The server warms up before it accepts requests. It refuses uploads of more
# than a megabyte while they arrive, answers two requests at a time, and turns away those that would
# wait long. What comes in is decoded as data; bytes that are not an image are the client's error.

SERVER = """
import contextlib, socket, sys

import anyio, joblib, numpy, uvicorn
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

from sklearn_taskres import UnreadableImagesError
from sklearn_taskres.inspection import predict_top

LARGEST, AT_A_TIME, WAITING = 1_000_000, 2, 16
model = joblib.load(sys.argv[1])


@contextlib.asynccontextmanager
async def lifespan(app):
    app.state.limiter = anyio.CapacityLimiter(AT_A_TIME)
    model.predict([numpy.zeros((8, 8))])  # loads the engine
    yield


async def predict(request):
    content = bytearray()
    async for part in request.stream():
        content += part
        if len(content) > LARGEST:
            return JSONResponse({"error": f"more than {LARGEST} bytes"}, 413)
    limiter = request.app.state.limiter
    if limiter.statistics().tasks_waiting >= WAITING:
        return JSONResponse({"error": "busy, try again"}, 503)
    try:
        (best,) = await anyio.to_thread.run_sync(
            predict_top, model, [bytes(content)], 3, limiter=limiter
        )
    except UnreadableImagesError as error:
        return JSONResponse({"error": error.failures[0][-1]}, 422)
    return JSONResponse([{"label": label, "probability": p} for label, p in best])


async def loaded(request):
    heavy = {"torch", "open_clip", "torchvision"}
    return JSONResponse(sorted(heavy & set(sys.modules)))


routes = [Route("/predict", predict, methods=["POST"]), Route("/loaded", loaded)]
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
app = Starlette(routes=routes, lifespan=lifespan)
uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=[listener])
"""

model.set_params(clip__backend="onnx", clip__precision="float32", clip__cache=folder / "cache")
model.fit(images[train], y[train])
joblib.dump(model, folder / "service.joblib")


def ask(path, content=None):
    """Status and answer of a request."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", content, 30) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def as_png(image):
    """Bytes of a PNG file."""
    content = io.BytesIO()
    Image.fromarray((255 * image).astype(np.uint8)).save(content, "png")
    return content.getvalue()


begun = time.perf_counter()
command = [sys.executable, "-c", SERVER, folder / "service.joblib"]
server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
try:
    port = int(server.stdout.readline())
    status, best = ask("/predict", as_png(images[0]))
    first_seconds = time.perf_counter() - begun
    print(f"first answer, {first_seconds:.1f} s after the start: {status}, {best[0]}")
    with ThreadPoolExecutor(8) as clients:
        answers = list(clients.map(lambda image: ask("/predict", as_png(image)), images[:32]))
    served = [answer[0]["label"] for status, answer in answers if status == 200]
    print("no image:", *ask("/predict", b"no image"))
    print("too large:", *ask("/predict", bytes(1_500_000)))
    print("imported of torch, open_clip, torchvision:", ask("/loaded")[1])
    assert ask("/loaded") == (200, [])
    assert ask("/predict", b"no image")[0] == 422
    assert ask("/predict", bytes(1_500_000))[0] == 413
    assert served == model.predict(images[:32]).tolist()
finally:
    server.terminate()
    server.communicate()

# %%
# Every server library will do: the pipeline is an object that takes bytes. In production let a
# proxy in front of it end encryption, and start one process per few cores.

# %%
# The picture
# -----------
# The model's size next to that of its CLIP's weights. This CLIP is tiny; common ones have hundreds
# of megabytes. The model is little more than three arrays of classes by features, here 10 by 128.

weights = next(Path(sklearn_taskres.__file__).parent.rglob("glyph-clip.safetensors"))
files = {
    "its CLIP": weights,
    "pipeline.joblib": folder / "pipeline.joblib",
    "classifier.joblib": folder / "classifier.joblib",
    "classifier.skops": folder / "classifier.skops",
}
sizes = [path.stat().st_size / 1024 for path in files.values()]
print(*(f"{name:18}{size:6.0f} kB" for name, size in zip(files, sizes, strict=True)), sep="\n")
assert sizes[0] > 20 * max(sizes[1:])
temporary.cleanup()

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 2.8), layout="constrained")
bars = left.barh(list(files), sizes, color=["0.75", *["tab:blue"] * 3])
left.bar_label(bars, fmt="{:.0f} kB", padding=4)
left.set(title="Size", xlim=(0, 1.35 * max(sizes)), xticks=[])
left.invert_yaxis()
seconds = [first_seconds, embedding_seconds]
bars = right.barh(["HTTP server,\none image", f"process,\n{len(y)} embeddings"], seconds)
right.bar_label(bars, fmt="{:.1f} s", padding=4)
right.set(title="From its start to its first answer", xticks=[])
right.set_xlim(0, 1.25 * max(seconds))
right.invert_yaxis()
for ax in (left, right):
    ax.spines[["top", "right", "bottom"]].set_visible(False)

if len(sys.argv) > 1:
    figure.savefig(sys.argv[1], dpi=150)
