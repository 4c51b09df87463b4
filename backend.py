"""Keras, imported with what must be settled before TensorFlow starts.

from backend import keras
"""

import os
import sys

# TensorFlow takes oneDNN's convolutions by itself only where the processor has
# AVX512_VNNI. On one with AVX2 they train the classic U-Net 1.45 times as fast.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # no lines about absent GPUs

try:
    import keras as keras
    from keras import ops as ops
except KeyboardInterrupt:  # this takes seconds: long enough to change one's mind
    print("\nstopped", file=sys.stderr)
    sys.exit(130)
