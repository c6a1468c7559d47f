// What can be downloaded without pip: one file for each platform and variant, with its SHA-256 where it is known.
import { VERSION } from "./places.mjs";

const HOST = "https://download.pytorch.org";
const wheel = (tag) => `${HOST}/whl/cpu/torch-${VERSION}%2Bcpu-cp311-cp311-${tag}.whl`;
const archive = (variant, name) => `${HOST}/libtorch/${variant}/${name}`;

/**
 * A wheel holds what an archive holds, under `torch/` instead of `libtorch/`; which Python it was made for does not matter
 * here. `sha256: null`: not known when this version was made. Such a file's digest is kept beside it when it is first
 * fetched, shown to the user, and compared from then on.
 */
const PACKAGES = {
  "linux-x64 cpu": {
    url: wheel("manylinux_2_28_x86_64"),
    top: "torch",
    sha256: "6746dbcbeb526eb61330b76b41ff1b4eb848951103a892eeb080dfa2b264667b",
  },
  "linux-arm64 cpu": { url: wheel("manylinux_2_28_aarch64"), top: "torch", sha256: null },
  "darwin-arm64 cpu": {
    url: archive("cpu", `libtorch-macos-arm64-${VERSION}.zip`),
    top: "libtorch",
    sha256: null,
  },
  "win32-x64 cpu": {
    url: archive("cpu", `libtorch-win-shared-with-deps-${VERSION}%2Bcpu.zip`),
    top: "libtorch",
    sha256: null,
  },
  "linux-x64 cu130": {
    url: archive("cu130", `libtorch-shared-with-deps-${VERSION}%2Bcu130.zip`),
    top: "libtorch",
    sha256: null,
  },
  "win32-x64 cu130": {
    url: archive("cu130", `libtorch-win-shared-with-deps-${VERSION}%2Bcu130.zip`),
    top: "libtorch",
    sha256: null,
  },
};

/** { url, top, sha256 } for a platform like "linux-x64", or undefined. */
export function packageFor(platform, variant) {
  return PACKAGES[`${platform} ${variant}`];
}

/** True for the files of a package that are needed: headers, libraries, and where the version is written. */
export function isNeeded(path, variant) {
  if (path === "version.py" || path === "build-version") return true;
  if (path.startsWith("include/")) return true;
  if (!path.startsWith("lib/")) return false;
  if (!/\.(so|dylib|dll|lib)(\.[\d.]+)?$|^lib\/lib[gi]?omp.*$/.test(path)) return false;
  return variant !== "cpu" || /^lib\/(lib)?(torch_cpu|c10|[gi]?omp|libiomp5md|uv|asmjit|fbgemm)/.test(path);
}
