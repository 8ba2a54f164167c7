from typing import Any

import numpy as np

class LazyValues:
    shape: Any
    dtype: Any
    nbytes: int
    def load(self) -> np.ndarray[Any, Any]: ...
