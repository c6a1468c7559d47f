// The trainers' classes; apart from handles.h because only their own files need autograd's types.
#pragma once
#include "napi/trainer.h"
#include "train/fuser_trainer.h"
#include "train/model_trainer.h"

namespace c2c {

class ModelTrainerHandle : public TrainerHandle<ModelTrainerHandle, ModelTrainer> {
 public:
  static constexpr const char* kName = "trainer";
  using TrainerHandle::TrainerHandle;
  static Napi::Function define(Napi::Env env);
  Napi::Value accumulate(const Napi::CallbackInfo& info);
};

class FuserTrainerHandle : public TrainerHandle<FuserTrainerHandle, FuserTrainer> {
 public:
  static constexpr const char* kName = "trainer";
  using TrainerHandle::TrainerHandle;
  static Napi::Function define(Napi::Env env);
  Napi::Value accumulate(const Napi::CallbackInfo& info);
  Napi::Value evaluate(const Napi::CallbackInfo& info);
  Napi::Value gates(const Napi::CallbackInfo& info);
  Napi::Value fuser(const Napi::CallbackInfo& info);
};

Napi::Value create_model_trainer(const Napi::CallbackInfo& info);
Napi::Value create_fuser_trainer(const Napi::CallbackInfo& info);

}  // namespace c2c
