"""Places of deployment. Each is a `zc.target.Target` and, where the place needs them, a legaliser, an emitter, a checker."""

if __name__ != "zc.backends":
    raise ImportError("import zc.backends, not backends: a second copy of every module would be made")
