// Fusers: per receiver layer a projector that turns a sharer's and the receiver's KV rows into new receiver rows.
#pragma once
#include <ATen/core/Generator.h>
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <utility>
#include <variant>
#include <vector>

#include "cache/kv_cache.h"
#include "core/cancel.h"
#include "core/error.h"

namespace c2c {

struct HeadShape {
  int64_t kv_heads = 0, head_dim = 0;
  int64_t width() const { return kv_heads * head_dim; }
  bool operator==(const HeadShape&) const = default;
};

// Constructor arguments of a projector kind, under the names that its folder gives them.
using Option = std::variant<double, bool, std::string>;
using Options = std::map<std::string, Option>;

// Tensors by their key in the projector's state dictionary.
using Tensors = std::unordered_map<std::string, at::Tensor>;

// KV rows of one layer, [tokens, heads, dim].
struct Rows {
  at::Tensor key, value;
};

// A sharer's rows that are no tensors: those of some spans of one layer, one after another.
class RowSource {
 public:
  virtual ~RowSource() = default;
  virtual int64_t count() const = 0;
  // Rows [start, end) of keys (part 0) or values at `out`, as float or bfloat16; many threads may ask at once.
  virtual void copy(int64_t part, int64_t start, int64_t end, at::ScalarType type, void* out) const = 0;
};

// Uniform draws from [0, 1), one for each token and receiver head; they select the training mode of the gates.
struct Noise {
  at::Tensor key, value;  // [tokens, receiver heads]
};

struct TowerTensors;  // fuser/tower_tensors.h

struct Projected {
  at::Tensor key, value;  // new receiver rows; undefined where that gate is closed
  // [tokens, heads] or broadcastable; undefined where closed, ones where there is none.
  at::Tensor key_weight, value_weight;
};

class Projector {
 public:
  virtual ~Projector();
  // Rows of sharer and receiver are equally many; both are cast to the fuser's dtype and left untouched. The results
  // have the receiver's dtype. Without noise gates are hard (open where the logit is above zero); with noise they are
  // sigmoid((logit + gumbel) / temperature).
  virtual Projected project(const Rows& sharer, const Rows& receiver, const Noise* noise, double temperature) const = 0;
  // The same, as in inference, for rows that are fetched in pieces; false, and nothing done, where the kind reads
  // tensors alone.
  virtual bool project_pieces(const RowSource& sharer, const Rows& receiver, Projected& result) const { return false; }
  // The gate's logit where the kind has one logit for the layer.
  virtual std::optional<double> key_gate() const = 0;
  virtual std::optional<double> value_gate() const = 0;
  // False where the hard gate is closed for every row, so that the part stays as it is.
  virtual bool key_open() const = 0;
  virtual bool value_open() const = 0;
  // The tensors of its keys' (part 0) or values' tower, where the kind's towers are what TowerTensors says and nothing
  // of them is differentiated; else false.
  virtual bool tower(int64_t part, TowerTensors& tensors) const { return false; }
  // Puts tensors with the same results in their place, so that a batch of towers need not hold weights twice.
  virtual void replace_tower(int64_t part, const TowerTensors& tensors) {}
  // True where each row's result depends on that row alone, so that rows of several spans may go in one call.
  virtual bool rowwise() const { return true; }
  // Size of the weights in bytes.
  int64_t bytes() const { return bytes_; }

 private:
  friend std::unique_ptr<Projector> make_training_projector(const std::string&, const Options&, HeadShape, HeadShape,
                                                            Tensors, at::ScalarType, std::shared_ptr<at::Generator>);
  int64_t bytes_ = 0;
};

// Builds a projector of a registered kind; weights are cast to `dtype`. SHAPE_MISMATCH for a missing (actual []), extra
// (expected []) or mis-shaped tensor, UNSUPPORTED for an unknown kind or combination of options.
std::unique_ptr<Projector> make_projector(const std::string& kind, const Options& options, HeadShape receiver,
                                          HeadShape sharer, Tensors weights, at::ScalarType dtype);
// The same for training: differentiable in `weights`, with the kind's dropout drawn from `random` (null: none).
std::unique_ptr<Projector> make_training_projector(const std::string& kind, const Options& options, HeadShape receiver,
                                                   HeadShape sharer, Tensors weights, at::ScalarType dtype,
                                                   std::shared_ptr<at::Generator> random);
// Names and shapes of a projector's weights, in the order of its constructor.
std::vector<std::pair<std::string, std::vector<int64_t>>> projector_shapes(const std::string& kind,
                                                                           const Options& options, HeadShape receiver,
                                                                           HeadShape sharer);

struct FuserLayer {
  int64_t receiver_layer = 0, sharer_layer = 0;
  std::unique_ptr<Projector> projector;
};

// What a device keeps of a fuser from one fusion to the next.
struct Prepared {
  virtual ~Prepared() = default;
};

struct Fuser {
  HeadShape receiver, sharer;
  at::ScalarType dtype = at::kFloat;
  std::vector<FuserLayer> layers;
  at::Device device = at::kCPU;                          // that of the weights
  mutable std::shared_ptr<Prepared> prepared = nullptr;  // made by the first fusion on a device
  int64_t bytes() const;
};

// Rows [receiver_start, receiver_end) of the receiver take part with equally many rows of the sharer.
struct FuseSpan {
  int64_t receiver_start = 0, receiver_end = 0, sharer_start = 0, sharer_end = 0;
};

struct Contribution {
  std::shared_ptr<const Fuser> fuser;
  std::shared_ptr<const KvCache> sharer;
  std::vector<FuseSpan> spans;
};

// What one fuser layer did: whether key and value were open, and their mean weights (0 where closed).
struct LayerReport {
  int64_t layer = 0;
  bool key = false, value = false;
  double key_weight = 0, value_weight = 0;
};

struct FuseReport {
  int64_t positions = 0;
  double ms = 0;
  std::vector<LayerReport> layers;
};

// Fuses sharers into the receiver's rows, in place; one report for each contribution. Sequential: each contribution
// sees what the one before wrote. Parallel: all project from the untouched rows and their differences are added. A
// cancelled or failed call leaves the receiver's rows as they were. Fusers lie on the receiver's device
// (OPTION_INVALID); a sharer's rows are brought there.
std::vector<FuseReport> fuse(KvCache& receiver, const std::vector<Contribution>& contributions, bool parallel,
                             const CancelFlag& cancel);

}  // namespace c2c
