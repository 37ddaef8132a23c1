"""What tells numerical libraries to do without instructions that this processor has.

Each library has a switch of its own; onnxruntime has none, and always takes what it finds.
"""

from collections.abc import Mapping

_WITHOUT_AVX512 = "AVX512F AVX512CD AVX512_SKX AVX512_CLX AVX512_CNL AVX512_ICL"

SETS: Mapping[str, Mapping[str, str]] = {
    # As an AMD EPYC before Zen 4, and Intel's processors for desktops.
    "avx2": {
        "ATEN_CPU_CAPABILITY": "avx2",
        "FAISS_SIMD_LEVEL": "AVX2",
        "MKL_CBWR": "AVX2",
        "NPY_DISABLE_CPU_FEATURES": _WITHOUT_AVX512,
        "ONEDNN_MAX_CPU_ISA": "AVX2",
        "OPENBLAS_CORETYPE": "Haswell",
        "OPENCV_CPU_DISABLE": "AVX512-SKX",
    },
    # What every x86-64 has had since 2008, and less than any machine that this product meets.
    "sse": {
        "ATEN_CPU_CAPABILITY": "default",
        "FAISS_SIMD_LEVEL": "NONE",
        "MKL_CBWR": "COMPATIBLE",
        "NPY_DISABLE_CPU_FEATURES": f"{_WITHOUT_AVX512} AVX2 FMA3 F16C AVX",
        "ONEDNN_MAX_CPU_ISA": "SSE41",
        "OPENBLAS_CORETYPE": "Prescott",
        "OPENCV_CPU_DISABLE": "AVX512-SKX,AVX2,FP16,AVX",
    },
}
