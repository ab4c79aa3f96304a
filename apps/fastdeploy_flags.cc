#include "fastdeploy_flags.h"

#include <algorithm>

#include "base/strings.h"

namespace fd {
namespace {

enum class Kind {
  kOnly,          // takes a value and works at the listed ones
  kNoteValue,     // takes a value, changes nothing, says so
  kNoteSwitch,    // the same without a value
  kRefuseValue,   // takes a value, still to come or not needed
  kRefuseSwitch,  // the same without a value
};

struct KnownFlag {
  const char* name;
  Kind kind;
  const char* allowed;  // kOnly: separated by '|'
  const char* sentence;
  bool in_help = false;
};

constexpr const char* kTensorParallel =
    "tensor parallelism is still to come; this version runs a model in one process: --tensor-parallel-size 1";
constexpr const char* kPrefillDecode =
    "separate prefill and decode instances are still to come; only 'mixed' works";
constexpr const char* kSpeculative = "speculative decoding is still to come";
constexpr const char* kOutputCache =
    "answers are kept like prompts; --no-enable-prefix-caching keeps neither";
constexpr const char* kKvOffload =
    "the key/value cache outside the memory of this machine (--swap-space) is still to come";
constexpr const char* kGrammar = "structured output is still to come; only 'off' works";
constexpr const char* kScheduler = "a scheduler shared over Redis is still to come; only 'local' works";
constexpr const char* kExpertParallel = "expert parallelism is still to come";
constexpr const char* kReinforcement = "exchanging weights at run time is not offered";
constexpr const char* kLogprobs = "this kind of log-probabilities is still to come";
constexpr const char* kRouter = "the router is still to come";
constexpr const char* kGraphs =
    "decode steps are recorded on CUDA unless --no-cuda-graphs says otherwise; prefills are not";
constexpr const char* kDownload = "models are not downloaded; --model takes a folder on this machine";
constexpr const char* kOneHost = "one process serves one host; nothing listens on this port";
constexpr const char* kPlugin = "Python plug-ins cannot be loaded into a native program";

constexpr KnownFlag kFlags[] = {
    {"tensor-parallel-size", Kind::kOnly, "1", kTensorParallel, true},
    {"engine-worker-queue-port", Kind::kNoteValue, "", kOneHost, true},
    {"cache-queue-port", Kind::kNoteValue, "", kOneHost},
    {"pd-comm-port", Kind::kRefuseValue, "", kPrefillDecode},
    {"rdma-comm-ports", Kind::kRefuseValue, "", kPrefillDecode},
    {"splitwise-role", Kind::kOnly, "mixed", kPrefillDecode},
    {"innode-prefill-ports", Kind::kRefuseValue, "", kPrefillDecode},
    {"cache-transfer-protocol", Kind::kRefuseValue, "", kPrefillDecode},
    {"router", Kind::kRefuseValue, "", kRouter},
    {"ips", Kind::kRefuseValue, "", "several hosts are still to come"},
    {"data-parallel-size", Kind::kOnly, "1",
     "data parallelism is still to come; start one server for each copy"},
    {"local-data-parallel-id", Kind::kOnly, "0", "data parallelism is still to come"},
    {"enable-expert-parallel", Kind::kRefuseSwitch, "", kExpertParallel},
    {"enable-eplb", Kind::kRefuseSwitch, "", kExpertParallel},
    {"eplb-config", Kind::kRefuseValue, "", kExpertParallel},
    {"enable-chunked-moe", Kind::kNoteSwitch, "",
     "experts are always computed in parts that fit the workspace"},
    {"chunked-moe-size", Kind::kRefuseValue, "", "the parts of experts follow --max-num-batched-tokens"},
    {"disable-sequence-parallel-moe", Kind::kNoteSwitch, "", "there is no sequence parallelism to disable"},
    {"use-internode-ll-two-stage", Kind::kRefuseSwitch, "", kExpertParallel},
    {"enable-flashinfer-allreduce-fusion", Kind::kRefuseSwitch, "", kTensorParallel},
    {"shutdown-comm-group-if-worker-idle", Kind::kRefuseSwitch, "", kReinforcement},
    {"no-shutdown-comm-group-if-worker-idle", Kind::kNoteSwitch, "", kReinforcement},
    {"routing-replay-config", Kind::kRefuseValue, "", kReinforcement},
    {"workers", Kind::kOnly, "1", "one process serves every connection; see --http-threads"},
    {"controller-port", Kind::kOnly, "-1", "the controller endpoints are still to come"},
    {"enable-mm-output", Kind::kRefuseSwitch, "", "multimodal_content in replies is still to come"},
    {"timeout", Kind::kOnly, "0", "there are no worker processes to watch"},
    {"revision", Kind::kRefuseValue, "", kDownload},
    {"tokenizer", Kind::kRefuseValue, "", "the tokenizer is read from the model's folder"},
    {"tokenizer-base-url", Kind::kRefuseValue, "", "the tokenizer is read from the model's folder"},
    {"model-config-name", Kind::kOnly, "config.json", "another name for config.json is still to come"},
    {"block-size", Kind::kOnly, "64", "pages hold 64 tokens"},
    {"use-warmup", Kind::kOnly, "0", "nothing needs a warm-up run"},
    {"enable-mm", Kind::kNoteSwitch, "", "whether a model sees pictures is read from its config.json"},
    {"tool-parser-plugin", Kind::kRefuseValue, "", kPlugin},
    {"lm-head-fp32", Kind::kRefuseSwitch, "", "use --dtype float32"},
    {"logits-processors", Kind::kRefuseValue, "", "logits processors are still to come"},
    {"enable-logprob", Kind::kNoteSwitch, "", "log-probabilities are always offered"},
    {"seed", Kind::kRefuseValue, "", "each request carries its own 'seed' field"},
    {"enable-early-stop", Kind::kRefuseSwitch, "", "early stopping is still to come"},
    {"early-stop-config", Kind::kRefuseValue, "", "early stopping is still to come"},
    {"guided-decoding-backend", Kind::kOnly, "off", kGrammar},
    {"guided-decoding-disable-any-whitespace", Kind::kRefuseSwitch, "", kGrammar},
    {"speculative-config", Kind::kRefuseValue, "", kSpeculative},
    {"graph-optimization-config", Kind::kRefuseValue, "", kGraphs},
    {"use-cudagraph", Kind::kNoteSwitch, "", kGraphs},
    {"plas-attention-config", Kind::kRefuseValue, "", "block-sparse attention is still to come"},
    {"load-choices", Kind::kOnly, "default|default_v1", "for random weights use --load-format dummy"},
    {"dynamic-load-weight", Kind::kRefuseSwitch, "", kReinforcement},
    {"load-strategy", Kind::kOnly, "normal", kReinforcement},
    {"rsync-config", Kind::kRefuseValue, "", kReinforcement},
    {"model-impl", Kind::kOnly, "auto|fastdeploy", "there is one implementation of each model"},
    {"enable-entropy", Kind::kRefuseSwitch, "", kLogprobs},
    {"enable-keep-sampling-mask", Kind::kRefuseSwitch, "", kLogprobs},
    {"deploy-modality", Kind::kOnly, "mixed", "the model decides what it takes"},
    {"disable-custom-all-reduce", Kind::kNoteSwitch, "", "one process needs no all-reduce"},
    {"enable-chunked-prefill", Kind::kNoteSwitch, "", "prompts are always computed in chunks"},
    {"disable-chunked-mm-input", Kind::kRefuseSwitch, "", "a chunk may always end inside a picture"},
    {"kv-cache-ratio", Kind::kRefuseValue, "", "prefill and decode share one pool of pages"},
    {"prealloc-dec-block-slot-num-threshold", Kind::kRefuseValue, "", "pages are given when they are needed"},
    {"static-decode-blocks", Kind::kRefuseValue, "", "pages are given when they are needed"},
    {"kvcache-storage-backend", Kind::kRefuseValue, "", kKvOffload},
    {"write-policy", Kind::kRefuseValue, "", kKvOffload},
    {"enable-output-caching", Kind::kNoteSwitch, "", kOutputCache},
    {"no-enable-output-caching", Kind::kRefuseSwitch, "", kOutputCache},
    {"enable-overlap-schedule", Kind::kRefuseSwitch, "",
     "overlapping schedule and execution is still to come"},
    {"scheduler-name", Kind::kOnly, "local", kScheduler},
    {"scheduler-max-size", Kind::kRefuseValue, "", "use --max-waiting-requests"},
    {"scheduler-ttl", Kind::kRefuseValue, "", "a limit on the life of a request is still to come"},
    {"scheduler-host", Kind::kRefuseValue, "", kScheduler},
    {"scheduler-port", Kind::kRefuseValue, "", kScheduler},
    {"scheduler-db", Kind::kRefuseValue, "", kScheduler},
    {"scheduler-password", Kind::kRefuseValue, "", kScheduler},
    {"scheduler-topic", Kind::kRefuseValue, "", kScheduler},
    {"scheduler-min-load-score", Kind::kRefuseValue, "", kScheduler},
    {"scheduler-load-shards-num", Kind::kRefuseValue, "", kScheduler},
    {"scheduler-sync-period", Kind::kRefuseValue, "", kScheduler},
    {"scheduler-expire-period", Kind::kRefuseValue, "", kScheduler},
    {"scheduler-release-load-expire-period", Kind::kRefuseValue, "", kScheduler},
    {"scheduler-reader-parallel", Kind::kRefuseValue, "", kScheduler},
    {"scheduler-writer-parallel", Kind::kRefuseValue, "", kScheduler},
    {"scheduler-reader-batch-size", Kind::kRefuseValue, "", kScheduler},
    {"scheduler-writer-batch-size", Kind::kRefuseValue, "", kScheduler},
};

}  // namespace

void AddFastDeployFlags(FlagSet& flags, std::vector<std::string>* notes) {
  for (const KnownFlag& flag : kFlags) {
    flags.Group(flag.in_help ? "FastDeploy compatibility" : "");
    std::string name = flag.name;
    std::string sentence = flag.sentence;
    switch (flag.kind) {
      case Kind::kOnly: {
        std::vector<std::string> allowed = Split(flag.allowed, '|');
        flags.Custom(name, flag.allowed, "Still to come: other values are refused", "",
                     [allowed, sentence](const std::string& text) {
                       bool ok = std::find(allowed.begin(), allowed.end(), text) != allowed.end();
                       return ok ? OkStatus() : Unimplemented(sentence);
                     });
        break;
      }
      case Kind::kNoteValue:
        flags.Custom(name, "PORT", "Accepted; one host needs no such port", "",
                     [notes, name, sentence](const std::string& text) {
                       notes->push_back(StrCat("--", name, " ", text, ": ", sentence));
                       return OkStatus();
                     });
        break;
      case Kind::kNoteSwitch:
        flags.OnSwitch(name, "",
                       [notes, name, sentence] { notes->push_back(StrCat("--", name, ": ", sentence)); });
        break;
      case Kind::kRefuseValue:
        flags.Refuse(name, true, sentence);
        break;
      case Kind::kRefuseSwitch:
        flags.Refuse(name, false, sentence);
        break;
    }
  }
}

}  // namespace fd
