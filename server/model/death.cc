#include "server/model/death.h"

#include <algorithm>
#include <utility>

namespace sluice {

void AddDeath(Death death, Deaths& deaths) {
  const auto same = std::find_if(deaths.begin(), deaths.end(), [&](const Death& earlier) {
    return earlier.queue == death.queue && earlier.reason == death.reason;
  });
  if (same != deaths.end()) {
    death.count += same->count;
    death.first_ms = same->first_ms;
    deaths.erase(same);
  }
  deaths.insert(deaths.begin(), std::move(death));
  if (deaths.size() > kDeathsMax) deaths.resize(kDeathsMax);
}

}  // namespace sluice
