#include <algorithm>
#include <array>
#include <chrono>

#include "cuda/cuda.h"
#include "napi/arguments.h"

namespace c2c {

DecoderSpec decoder_spec(const Napi::Object& o) {
  DecoderSpec s;
  s.hidden = integer(o, "hidden");
  s.heads = integer(o, "heads");
  s.kv_heads = integer(o, "kvHeads");
  s.head_dim = integer(o, "headDim");
  s.intermediate = integer(o, "intermediate");
  s.vocab = integer(o, "vocab");
  s.context = integer(o, "context");
  s.norm_eps = number(o, "normEps");
  s.norm_offset = number(o, "normOffset");
  s.embedding_scale = number(o, "embeddingScale");
  s.query_scale = number(o, "queryScale");
  s.logit_softcap = number(o, "logitSoftcap");
  const std::string activation = text(o, "activation");
  s.activation = activation == "silu"   ? Activation::kSilu
                 : activation == "gelu" ? Activation::kGelu
                                        : Activation::kGeluTanh;
  s.qk_norm = boolean(o, "qkNorm");
  s.qkv_bias = boolean(o, "qkvBias");
  s.output_bias = boolean(o, "outputBias");
  s.mlp_bias = boolean(o, "mlpBias");
  s.post_norms = boolean(o, "postNorms");
  s.tied = boolean(o, "tied");
  s.prefix = text(o, "prefix");
  s.head = text(o, "head");
  each(o.Get("ropes"), [&](const Napi::Value& rope) {
    const auto f = rope.As<Napi::Object>().Get("inverseFrequencies").As<Napi::Float64Array>();
    s.ropes.emplace_back(f.Data(), f.Data() + f.ElementLength());
  });
  each(o.Get("layers"), [&](const Napi::Value& layer) {
    s.layers.push_back({integer(layer.As<Napi::Object>(), "rope"), integer(layer.As<Napi::Object>(), "window")});
  });
  return s;
}

namespace {

Quantize quantization(const Napi::Value& value) {
  if (!value.IsString()) return Quantize::kNone;
  return value.As<Napi::String>().Utf8Value() == "int8" ? Quantize::kInt8 : Quantize::kInt4;
}

// One request with the lease on its cache; checks ids and positions against the model.
struct Held {
  Lease lease;
  Request request;
  Held(const Decoder& model, std::shared_ptr<CacheBox> box, const Napi::Value& tokens, const Napi::Value& positions,
       Logits logits, bool given, const std::string& operation)
      : lease(std::move(box), true, operation),
        request{&lease.cache(), ids(tokens), positions.IsNull() ? std::vector<uint32_t>{} : ids(positions), logits,
                given} {
    if (!(lease.cache().layout() == model.layout())) {
      throw Error("CACHE_FOREIGN", "the cache belongs to a model of another shape",
                  {{"expected", std::string("this model's cache")}, {"actual", std::string("another model's cache")}});
    }
    if (!request.positions.empty() && request.tokens.size() != request.positions.size())
      option_invalid("positions", "not one for each token");
    for (const uint32_t id : request.tokens) {
      if (id >= model.spec().vocab) option_invalid("tokens", "id " + std::to_string(id) + " is outside the vocabulary");
    }
  }
};

// ── forwards: those of different models that wait for one CUDA device run side by side ───────────────────────────────

struct Forward {
  std::shared_ptr<Bridge> bridge;
  Napi::Promise::Deferred deferred;
  std::shared_ptr<const Decoder> model;
  std::unique_ptr<Held> held;
  CancelFlag cancel;

  // Any thread; never throws.
  Reply run() {
    return guard([this]() -> Reply {
      check(cancel);
      std::vector<Request> requests{held->request};
      const at::Tensor rows = model->forward(requests, cancel)[0];
      return [rows](Napi::Env env) -> Napi::Value {
        return rows.defined() ? float_array(env, rows).As<Napi::Value>() : env.Null();
      };
    });
  }
  // The lease ends before the promise settles.
  void settle(Reply reply) {
    held.reset();
    bridge->settle(deferred, std::move(reply));
  }
};

class ForwardJob : public Job {
 public:
  explicit ForwardJob(Forward forward) {
    cancel = forward.cancel;
    flags_.push_back(forward.cancel);
    forwards_.push_back(std::move(forward));
  }
  const void* batch_key() const override {
    // One address for each device.
    static const std::array<char, 128> keys{};
    const at::Device device = forwards_.front().model->device();
    return device.is_cpu() ? nullptr : &keys.at(static_cast<size_t>(std::max<int>(device.index(), 0)));
  }
  bool absorb(std::shared_ptr<Job>& other) override {
    auto* job = dynamic_cast<ForwardJob*>(other.get());
    if (job == nullptr) return false;
    // A decoder has one workspace: two of its forwards would share it.
    Forward& joining = job->forwards_.front();
    const auto same = [&](const Forward& own) { return own.model == joining.model; };
    if (std::any_of(forwards_.begin(), forwards_.end(), same)) return false;
    flags_.push_back(joining.cancel);
    forwards_.push_back(std::move(joining));
    return true;
  }
  void stop() override {
    for (const auto& flag : flags_) flag->store(true);
  }
  void drop() override {
    for (auto& forward : forwards_) forward.settle(guard([]() -> Reply { throw Cancelled(); }));
  }
  void run() override {
    std::vector<Reply> replies(forwards_.size());
    std::vector<std::function<void()>> jobs;
    for (size_t i = 0; i < forwards_.size(); ++i) jobs.emplace_back([&, i] { replies[i] = forwards_[i].run(); });
    const Reply problem = guard([&]() -> Reply {
      if (jobs.size() == 1) {
        jobs.front()();
      } else {
        cuda::side_by_side(forwards_.front().model->device(), jobs);
      }
      return nullptr;
    });
    for (size_t i = 0; i < forwards_.size(); ++i)
      forwards_[i].settle(problem || !replies[i] ? problem : std::move(replies[i]));
  }

 private:
  std::vector<Forward> forwards_;
  std::vector<CancelFlag> flags_;
};

Logits logits_of(const Napi::Value& value) {
  const std::string wanted = value.As<Napi::String>().Utf8Value();
  return wanted == "none" ? Logits::kNone : wanted == "last" ? Logits::kLast : Logits::kAll;
}

// ── steps: what waits for one model runs as one ragged batch ─────────────────────────────────────────────────────────

struct Step {
  std::shared_ptr<Bridge> bridge;
  Napi::Promise::Deferred deferred;
  std::unique_ptr<Held> held;
  std::shared_ptr<Sampler> sampler;
  bool want_logits;
  CancelFlag cancel;

  void settle(Reply reply) {
    held.reset();
    bridge->settle(deferred, std::move(reply));
  }
  void cancelled() {
    settle(guard([]() -> Reply { throw Cancelled(); }));
  }
};

class StepJob : public Job {
 public:
  StepJob(std::shared_ptr<const Decoder> model, Step step) : model_(std::move(model)) {
    cancel = step.cancel;
    steps_.push_back(std::move(step));
  }
  const void* batch_key() const override { return model_.get(); }
  size_t expected() const override { return expected_; }
  bool absorb(std::shared_ptr<Job>& other) override {
    auto* job = dynamic_cast<StepJob*>(other.get());
    if (job == nullptr) return false;
    for (auto& step : job->steps_) steps_.push_back(std::move(step));
    job->steps_.clear();
    return true;
  }
  void drop() override {
    for (auto& step : steps_) step.cancelled();
  }
  void run() override {
    auto start = std::chrono::steady_clock::now();
    std::erase_if(steps_, [](Step& step) {
      if (!step.cancel->load()) return false;
      step.cancelled();
      return true;
    });
    // A cache without room fails its own step, not those that run with it.
    std::erase_if(steps_, [](Step& step) {
      const Reply problem = guard([&]() -> Reply {
        Request& request = step.held->request;
        if (request.given) return nullptr;
        request.cache->make_room(static_cast<int64_t>(request.tokens.size()));
        request.cache->reserve(static_cast<int64_t>(request.tokens.size()));
        return nullptr;
      });
      if (problem) step.settle(problem);
      return problem != nullptr;
    });
    if (steps_.empty()) return;
    std::vector<at::Tensor> rows;
    const Reply problem = guard([&]() -> Reply {
      std::vector<Request> requests;
      for (const auto& step : steps_) requests.push_back(step.held->request);
      rows = model_->forward(requests, steps_.size() == 1 ? steps_[0].cancel : nullptr);
      return nullptr;
    });
    // Each is followed by its generation's next step; before any is settled none of these can be among those that wait.
    if (!problem) expected_ = steps_.size() + Executor::instance().waiting();
    for (size_t i = 0; i < steps_.size(); ++i) {
      if (problem) {
        steps_[i].settle(problem);
        continue;
      }
      const at::Tensor row = rows[i];
      Reply reply = guard([&]() -> Reply {
        const uint32_t id = steps_[i].sampler->pick(row.const_data_ptr<float>(), row.numel());
        if (!steps_[i].want_logits) return [id](Napi::Env env) -> Napi::Value { return Napi::Number::New(env, id); };
        return [id, row](Napi::Env env) -> Napi::Value {
          auto result = Napi::Object::New(env);
          result.Set("id", Napi::Number::New(env, id));
          result.Set("logits", float_array(env, row));
          return result;
        };
      });
      // Waking the JavaScript thread is no part of the step.
      Executor::instance().count_step(std::chrono::steady_clock::now() - start);
      steps_[i].settle(std::move(reply));
      start = std::chrono::steady_clock::now();
    }
  }

 private:
  std::shared_ptr<const Decoder> model_;
  std::vector<Step> steps_;
  size_t expected_ = 0;
};

}  // namespace

// ── the handle ───────────────────────────────────────────────────────────────────────────────────────────────────────

Napi::Function ModelHandle::define(Napi::Env env) {
  return DefineClass(
      env, "NativeModel",
      {InstanceAccessor<&ModelHandle::bytes>("bytes"), InstanceAccessor<&ModelHandle::dtype>("dtype"),
       InstanceMethod("cache", &ModelHandle::cache), InstanceMethod("loadCache", &ModelHandle::load_cache),
       InstanceMethod("forward", &ModelHandle::forward), InstanceMethod("step", &ModelHandle::step),
       InstanceMethod("dispose", &ModelHandle::dispose)});
}

Napi::Value ModelHandle::bytes(const Napi::CallbackInfo& info) {
  return sync(info.Env(), [&] { return Napi::Number::New(info.Env(), static_cast<double>(get()->bytes())); });
}
Napi::Value ModelHandle::dtype(const Napi::CallbackInfo& info) {
  return sync(info.Env(), [&] { return Napi::String::New(info.Env(), scalar_name(get()->dtype())); });
}

Napi::Value ModelHandle::cache(const Napi::CallbackInfo& info) {
  return sync(info.Env(), [&] {
    const int64_t capacity = integer(info[0]);
    const auto policy =
        info[2].IsObject() ? make_policy(policy_options(info[2].As<Napi::Object>()), capacity) : nullptr;
    auto cache =
        std::make_shared<KvCache>(get()->layout(), capacity, info[1].As<Napi::Boolean>().Value(), get()->ropes());
    cache->set_policy(policy);
    return CacheHandle::wrap(info.Env(), std::move(cache));
  });
}

Napi::Value ModelHandle::forward(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  return sync(env, [&] {
    const auto model = get();
    auto held = std::make_unique<Held>(*model, unwrap<CacheHandle>(info[0]), info[1], info[2], logits_of(info[3]),
                                       info[4].As<Napi::Boolean>().Value(), "forward");
    auto deferred = Napi::Promise::Deferred::New(env);
    Forward forward{bridge(env), deferred, model, std::move(held), cancel_flag(info[5])};
    forward.bridge->begin(env, forward.cancel);
    Executor::instance().submit(std::make_shared<ForwardJob>(std::move(forward)));
    return deferred.Promise();
  });
}

Napi::Value prefill_together(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  return sync(env, [&] {
    const CancelFlag cancel = cancel_flag(info[1]);
    auto promises = Napi::Array::New(env);
    std::vector<std::shared_ptr<Job>> jobs;
    std::vector<Forward> forwards;
    each(info[0], [&](const Napi::Value& value) {
      const auto o = value.As<Napi::Object>();
      auto model = unwrap<ModelHandle>(o.Get("model"));
      auto held = std::make_unique<Held>(*model, unwrap<CacheHandle>(o.Get("cache")), o.Get("tokens"),
                                         o.Get("positions"), Logits::kNone, false, "forward");
      forwards.push_back({bridge(env), Napi::Promise::Deferred::New(env), std::move(model), std::move(held), cancel});
    });
    // Nothing has begun where an argument was wrong.
    for (Forward& forward : forwards) {
      promises.Set(promises.Length(), forward.deferred.Promise());
      forward.bridge->begin(env, cancel);
      jobs.push_back(std::make_shared<ForwardJob>(std::move(forward)));
    }
    Executor::instance().submit(std::move(jobs));
    return promises;
  });
}

Napi::Value ModelHandle::step(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  return sync(env, [&]() -> Napi::Value {
    const auto model = get();
    auto held = std::make_unique<Held>(*model, unwrap<CacheHandle>(info[0]), info[2], info[3], Logits::kLast,
                                       info[4].As<Napi::Boolean>().Value(), "step");
    if (held->request.tokens.empty()) option_invalid("tokens", "a step needs at least one token");
    auto deferred = Napi::Promise::Deferred::New(env);
    Step step{bridge(env),
              deferred,
              std::move(held),
              unwrap<SamplerHandle>(info[1]),
              info[5].As<Napi::Boolean>().Value(),
              cancel_flag(info[6])};
    step.bridge->begin(env, step.cancel);
    Executor::instance().submit(std::make_shared<StepJob>(model, std::move(step)));
    return deferred.Promise();
  });
}

Napi::Value load_model(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  return sync(env, [&] {
    auto spec = std::make_shared<DecoderSpec>(decoder_spec(info[0].As<Napi::Object>()));
    auto table = std::make_shared<TensorTable>(tensor_table(info[1].As<Napi::Object>()));
    const at::ScalarType dtype = scalar_type(info[2].As<Napi::String>().Utf8Value());
    // Lives and dies on the JavaScript thread: the reply owns it by a plain pointer.
    auto* progress =
        info[4].IsFunction() ? new Napi::FunctionReference(Napi::Persistent(info[4].As<Napi::Function>())) : nullptr;
    const Quantize quantize = quantization(info[3]);
    const at::Device device = device_of(info[6]);
    return async(env, cancel_flag(info[5]), [spec, table, dtype, quantize, device, progress]() -> Reply {
      // Quantised weights are made from what the files hold, one after the other.
      auto tensors = map_tensors(*table, quantize == Quantize::kNone ? std::optional(dtype) : std::nullopt);
      const auto count = static_cast<double>(tensors.size());
      auto model = std::make_shared<Decoder>(std::move(*spec), std::move(tensors), dtype, quantize, device);
      return [model, progress, count](Napi::Env e) -> Napi::Value {
        const std::unique_ptr<Napi::FunctionReference> owned(progress);
        if (owned) owned->Call({Napi::Number::New(e, count), Napi::Number::New(e, count)});
        return ModelHandle::make(e, model, model->bytes());
      };
    });
  });
}

}  // namespace c2c
