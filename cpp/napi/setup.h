// The only place that includes napi.h.
#pragma once
#include <napi.h>
