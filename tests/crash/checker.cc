#include "tests/crash/checker.h"

#include <algorithm>
#include <set>
#include <unordered_map>

#include "absl/strings/str_cat.h"

namespace sluice::crash {
namespace {

// Server and client read the same clock, but the server's leases run on one that slews towards it.
constexpr int64_t kClockSlackMs = 50;

bool Settles(Action action) { return action == Action::kAck || action == Action::kDiscard; }
bool Ends(Action action) { return action != Action::kExtend; }

// All that happened to one message.
struct Life {
  const PublishRecord* publish = nullptr;
  std::vector<const DeliveryRecord*> deliveries;  // in order of `at`
  std::vector<const SettleRecord*> settles;
};

class HistoryCheck {
 public:
  explicit HistoryCheck(const History& history) : history_(history) {
    for (const PublishRecord& publish : history.publishes) {
      Life& life = lives_[publish.id];
      if (life.publish != nullptr) Fail("phantom", absl::StrCat("harness reused id ", publish.id));
      life.publish = &publish;
    }
    for (const DeliveryRecord& d : history.deliveries) lives_[d.id].deliveries.push_back(&d);
    for (const SettleRecord& s : history.settles) lives_[s.id].settles.push_back(&s);
    for (const CloseRecord& close : history.closes) closes_[close.stream] = close.at;
    kills_ = history.kills;
    std::sort(kills_.begin(), kills_.end());
    for (auto& [id, life] : lives_) {
      std::sort(life.deliveries.begin(), life.deliveries.end(),
                [](const auto* a, const auto* b) { return a->at < b->at; });
    }
  }

  Verdict Run() {
    for (const auto& [id, life] : lives_) {
      CheckPhantom(id, life);
      CheckLoss(id, life);
      CheckResurrection(id, life);
      CheckLeases(id, life);
      CheckAttempts(id, life);
      CheckReceipts(id, life);
    }
    CheckOrder();
    CheckDepths();
    return Judge();
  }

 private:
  void Fail(std::string rule, std::string what) {
    ++failures_;
    if (verdict_.violations.size() < Verdict::kViolationsMax) {
      verdict_.violations.push_back({std::move(rule), std::move(what)});
    }
  }

  static std::string Name(const DeliveryRecord& d) {
    return absl::StrCat("delivery ", d.delivery_count, " (attempt ", d.attempt, ", generation ",
                        d.generation, ", tick ", d.at, ")");
  }

  // A later hand-out than `a`: within one run of the server by its count, else by the run.
  static bool GrantedLater(const DeliveryRecord& b, const DeliveryRecord& a) {
    if (b.generation != a.generation) return b.generation > a.generation;
    return b.delivery_count > a.delivery_count;
  }

  static const DeliveryRecord* DeliveryOf(const Life& life, const std::string& receipt) {
    for (const DeliveryRecord* d : life.deliveries) {
      if (d->receipt == receipt) return d;
    }
    return nullptr;
  }

  bool KilledBetween(Tick begin, Tick end) const {
    auto kill = std::lower_bound(kills_.begin(), kills_.end(), begin);
    return kill != kills_.end() && *kill < end;
  }

  void CheckPhantom(const std::string& id, const Life& life) {
    if (life.deliveries.empty()) return;
    if (life.publish == nullptr) {
      Fail("phantom", absl::StrCat(id, " was delivered and never published"));
      return;
    }
    if (life.publish->outcome == Outcome::kRefused) {
      Fail("phantom", absl::StrCat(id, " was refused and yet delivered"));
    }
    for (const DeliveryRecord* d : life.deliveries) {
      if (!d->body_intact) Fail("phantom", absl::StrCat(id, " came garbled, ", Name(*d)));
      if (d->queue != life.publish->queue) {
        Fail("phantom", absl::StrCat(id, " came from queue ", d->queue));
      }
      if (d->message_id != life.deliveries[0]->message_id) {
        Fail("phantom", absl::StrCat(id, " is stored twice"));
      }
    }
  }

  void CheckLoss(const std::string& id, const Life& life) {
    if (!history_.drained || life.publish == nullptr || life.publish->outcome != Outcome::kOk) {
      return;
    }
    const bool settled = std::any_of(
        life.settles.begin(), life.settles.end(), [](const SettleRecord* s) {
          return Settles(s->action) && s->outcome != Outcome::kRefused;
        });
    if (life.deliveries.empty()) {
      Fail("loss", absl::StrCat(id, " was confirmed and never delivered"));
    } else if (!settled) {
      Fail("loss", absl::StrCat(id, " was delivered, never settled, and is gone"));
    }
  }

  void CheckResurrection(const std::string& id, const Life& life) {
    for (const SettleRecord* settle : life.settles) {
      if (!Settles(settle->action) || settle->outcome != Outcome::kOk) continue;
      const DeliveryRecord* settled = DeliveryOf(life, settle->receipt);
      if (settled == nullptr) continue;
      for (const DeliveryRecord* d : life.deliveries) {
        if (d->at > settle->end && GrantedLater(*d, *settled)) {
          Fail("resurrection", absl::StrCat(id, " was settled at tick ", settle->end,
                                            " and came again: ", Name(*d)));
        }
      }
    }
  }

  // Whether the lease of `a` may have ended, other than by time, before tick `before`.
  bool MayHaveEnded(const Life& life, const DeliveryRecord& a, Tick before) const {
    if (KilledBetween(a.at, before)) return true;
    auto close = closes_.find(a.stream);
    if (close != closes_.end() && close->second < before) return true;
    return std::any_of(life.settles.begin(), life.settles.end(), [&](const SettleRecord* s) {
      return s->receipt == a.receipt && Ends(s->action) && s->outcome != Outcome::kRefused &&
             s->begin < before;
    });
  }

  void CheckLeases(const std::string& id, const Life& life) {
    for (const DeliveryRecord* a : life.deliveries) {
      for (const DeliveryRecord* b : life.deliveries) {
        if (a->generation != b->generation || !GrantedLater(*b, *a)) continue;
        // The lease as of the last extension that was known to hold before b arrived.
        int64_t until_ms = a->lease_until_wall_ms;
        for (const SettleRecord* s : life.settles) {
          if (s->receipt == a->receipt && s->action == Action::kExtend &&
              s->outcome == Outcome::kOk && s->end < b->at) {
            until_ms = std::max(until_ms, s->lease_until_wall_ms);
          }
        }
        if (b->at_wall_ms + kClockSlackMs < until_ms && !MayHaveEnded(life, *a, b->at)) {
          Fail("lease", absl::StrCat(id, ": ", Name(*b), " came ", until_ms - b->at_wall_ms,
                                     " ms before the end of the lease of ", Name(*a)));
        }
      }
    }
  }

  void CheckAttempts(const std::string& id, const Life& life) {
    for (const DeliveryRecord* d : life.deliveries) {
      if (d->attempt < 1 || d->attempt > d->delivery_count) {
        Fail("attempt", absl::StrCat(id, ": impossible ", Name(*d)));
      }
    }
    std::vector<const DeliveryRecord*> granted = life.deliveries;
    std::sort(granted.begin(), granted.end(), [](const auto* a, const auto* b) {
      return a->generation != b->generation ? a->generation < b->generation
                                            : a->delivery_count < b->delivery_count;
    });
    for (size_t i = 1; i < granted.size(); ++i) {
      CheckSuccessor(id, life, *granted[i - 1], *granted[i]);
    }
  }

  // `b` is the next delivery that was seen after `a`.
  void CheckSuccessor(const std::string& id, const Life& life, const DeliveryRecord& a,
                      const DeliveryRecord& b) {
    const std::string pair = absl::StrCat(id, ": ", Name(a), " then ", Name(b));
    if (a.generation != b.generation) {
      if (b.delivery_count <= a.delivery_count && !b.maybe_redelivered) {
        Fail("attempt", absl::StrCat(pair, " is neither counted nor flagged"));
      }
      return;
    }
    if (a.delivery_count == b.delivery_count) {
      Fail("attempt", absl::StrCat(pair, ": the same hand-out twice"));
      return;
    }
    if (b.attempt < a.attempt ||
        b.attempt - a.attempt > b.delivery_count - a.delivery_count) {
      Fail("attempt", absl::StrCat(pair, ": attempts do not follow deliveries"));
    }
    if (b.delivery_count != a.delivery_count + 1) return;
    for (const SettleRecord* s : life.settles) {
      if (s->receipt != a.receipt || s->outcome != Outcome::kOk || s->end > b.at) continue;
      // An expiry may have come first, so that a release settles nothing any more.
      const bool in_time = b.at_wall_ms + kClockSlackMs < a.lease_until_wall_ms;
      const bool closed = closes_.count(a.stream) != 0 && closes_.at(a.stream) < b.at;
      if (s->action == Action::kRelease && in_time && !closed && b.attempt != a.attempt) {
        Fail("attempt", absl::StrCat(pair, ": a release counted as a failure"));
      }
      if (s->action == Action::kRetry && b.attempt != a.attempt + 1) {
        Fail("attempt", absl::StrCat(pair, ": a retry did not count"));
      }
    }
  }

  void CheckReceipts(const std::string& id, const Life& life) {
    for (const SettleRecord* s : life.settles) {
      if (s->outcome != Outcome::kOk) continue;
      const DeliveryRecord* of = DeliveryOf(life, s->receipt);
      if (of == nullptr) continue;
      const bool settled_anyway =
          std::any_of(life.settles.begin(), life.settles.end(), [&](const SettleRecord* other) {
            return other != s && Settles(other->action) && other->outcome != Outcome::kRefused &&
                   other->begin < s->end;
          });
      if (settled_anyway) continue;
      for (const DeliveryRecord* d : life.deliveries) {
        if (d->at < s->begin && GrantedLater(*d, *of)) {
          Fail("receipt", absl::StrCat(id, ": the receipt of ", Name(*of),
                                       " was accepted after ", Name(*d)));
          break;
        }
      }
    }
  }

  void CheckOrder() {
    const std::set<std::string> fifo(history_.fifo_queues.begin(), history_.fifo_queues.end());
    // Per stream: the latest begin of a publish whose message was delivered already, and the place
    // in it of the last one of each batch.
    struct Seen {
      Tick begin_max = 0;
      std::string id_max;
      std::unordered_map<Tick, int> index_of_batch;
    };
    std::unordered_map<uint64_t, Seen> streams;
    std::vector<const DeliveryRecord*> deliveries;
    for (const DeliveryRecord& d : history_.deliveries) {
      const bool first = d.attempt == 1 && d.delivery_count == 1 && !d.maybe_redelivered;
      if (first && fifo.count(d.queue) != 0) deliveries.push_back(&d);
    }
    std::sort(deliveries.begin(), deliveries.end(),
              [](const auto* a, const auto* b) { return a->at < b->at; });
    for (const DeliveryRecord* d : deliveries) {
      const PublishRecord* publish = lives_.at(d->id).publish;
      if (publish == nullptr) continue;
      Seen& seen = streams[d->stream];
      if (publish->end != 0 && publish->end < seen.begin_max) {
        Fail("order", absl::StrCat(d->id, " came after ", seen.id_max,
                                   ", which was published later"));
      }
      auto [index, fresh] = seen.index_of_batch.try_emplace(publish->begin, publish->index);
      if (!fresh) {
        if (publish->index < index->second) {
          Fail("order", absl::StrCat(d->id, " came after a later message of its batch"));
        }
        index->second = publish->index;
      }
      if (publish->begin > seen.begin_max) {
        seen.begin_max = publish->begin;
        seen.id_max = d->id;
      }
    }
  }

  void CheckDepths() {
    for (const DepthRecord& depth : history_.depths) {
      int64_t must = 0;
      int64_t can = 0;
      for (const auto& [id, life] : lives_) {
        if (life.publish == nullptr || life.publish->queue != depth.queue) continue;
        if (life.publish->begin > depth.at || life.publish->outcome == Outcome::kRefused) continue;
        bool surely_settled = false;
        bool maybe_settled = false;
        for (const SettleRecord* s : life.settles) {
          if (!Settles(s->action) || s->begin > depth.at) continue;
          surely_settled |= s->outcome == Outcome::kOk;
          maybe_settled |= s->outcome != Outcome::kRefused;
        }
        const bool surely_stored =
            life.publish->outcome == Outcome::kOk || !life.deliveries.empty();
        must += surely_stored && !maybe_settled;
        can += !surely_settled;
      }
      if (depth.messages < must || depth.messages > can) {
        Fail("depth", absl::StrCat(depth.queue, " reported ", depth.messages, ", between ", must,
                                   " and ", can, " can be there"));
      }
    }
  }

  Verdict Judge() {
    int64_t confirmed = 0;
    int64_t refused = 0;
    for (const PublishRecord& p : history_.publishes) {
      confirmed += p.outcome == Outcome::kOk;
      refused += p.outcome == Outcome::kRefused;
    }
    int64_t again = 0;
    for (const auto& [id, life] : lives_) again += life.deliveries.size() > 1;
    verdict_.summary = absl::StrCat(
        "published ", history_.publishes.size(), " (confirmed ", confirmed, ", refused ", refused,
        "), delivered ", history_.deliveries.size(), " (", again,
        " messages more than once), settling calls for ", history_.settles.size(),
        " receipts, kills ", kills_.size(), ", depths checked ", history_.depths.size(),
        ", violations ", failures_);
    if (failures_ > 0) {
      verdict_.kind = Verdict::Kind::kFail;
    } else if (confirmed == 0) {
      verdict_.why_unknown = "nothing was published";
    } else if (kills_.empty()) {
      verdict_.why_unknown = "no fault fired";
    } else if (again == 0) {
      verdict_.why_unknown = "nothing was ever redelivered: the faults did not bite";
    } else if (!history_.drained) {
      verdict_.why_unknown = "the drain did not finish";
    } else {
      verdict_.kind = Verdict::Kind::kPass;
    }
    return verdict_;
  }

  const History& history_;
  std::unordered_map<std::string, Life> lives_;
  std::unordered_map<uint64_t, Tick> closes_;
  std::vector<Tick> kills_;
  Verdict verdict_;
  int64_t failures_ = 0;
};

}  // namespace

Verdict Check(const History& history) { return HistoryCheck(history).Run(); }

}  // namespace sluice::crash
