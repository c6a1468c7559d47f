// What can be downloaded without pip: one file for each platform and variant, with its SHA-256.
import { VERSION } from "./places.mjs";

const HOST = "https://download.pytorch.org";
const wheel = (tag) => `${HOST}/whl/cpu/torch-${VERSION}%2Bcpu-cp311-cp311-${tag}.whl`;
const archive = (variant, name) => `${HOST}/libtorch/${variant}/${name}`;

/**
 * A wheel holds what an archive holds, under `torch/` instead of `libtorch/`; which Python it was made for does not matter
 * here.
 */
const PACKAGES = {
  "linux-x64 cpu": {
    url: wheel("manylinux_2_28_x86_64"),
    top: "torch",
    sha256: "6746dbcbeb526eb61330b76b41ff1b4eb848951103a892eeb080dfa2b264667b",
  },
  "linux-arm64 cpu": {
    url: wheel("manylinux_2_28_aarch64"),
    top: "torch",
    sha256: "84453b69508ec79902f899c5ed9495acb9e2bbe9fda5f1d5d6f19e3c3842e1a7",
  },
  "darwin-arm64 cpu": {
    url: archive("cpu", `libtorch-macos-arm64-${VERSION}.zip`),
    top: "libtorch",
    sha256: "1e10c6c4dc2764150c9fb2ad28e1889191302734e7f939108e5d2f22f21a06f8",
  },
  "win32-x64 cpu": {
    url: archive("cpu", `libtorch-win-shared-with-deps-${VERSION}%2Bcpu.zip`),
    top: "libtorch",
    sha256: "e1cd3950adc30c54c364eaaf44c2b0caf1eafee29a6e811c805e6fe1ce912759",
  },
  "linux-x64 cu130": {
    url: archive("cu130", `libtorch-shared-with-deps-${VERSION}%2Bcu130.zip`),
    top: "libtorch",
    sha256: "945c5a3d946a28b387ad9dc9fddda7ba03e35fae1375b84ebff15df789436f82",
  },
  "win32-x64 cu130": {
    url: archive("cu130", `libtorch-win-shared-with-deps-${VERSION}%2Bcu130.zip`),
    top: "libtorch",
    sha256: "be25958466f64d551221c3525f5d878200d3e3ef7c6eb36af6a282f6f6076dac",
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
