//! The fleet as this control plane knows it: a copy of the store's instances and wishes, and the latest samples.
//!
//! Registrations and wishes come from the store through `follow`; what this process wrote itself is applied at once,
//! and versions keep a late echo from undoing it. Samples live here only.

use equipoise_fleet::CongestionPrice;
use equipoise_proto::v1::{
    EnergySample, EnergySource, EngineSample, GpuSample, Instance, InstanceAdmin, InstanceState,
};
use equipoise_store::{Entry, Listing, Revision};
use equipoise_types::Timestamp;
use prost::Message as _;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

mod near;
pub(crate) use near::near_names;

/// Prefix of registrations in the store; they stand under their node's lease.
pub(crate) const INSTANCES: &str = "instances/";
/// Prefix of operators' wishes in the store; they stand under no lease.
pub(crate) const WISHES: &str = "admin/";

/// Samples older than this are shown as stale.
pub(crate) const STALE_AFTER: Duration = Duration::from_secs(3);
/// Over how long power and joules per token are averaged.
const METER_WINDOW: Duration = Duration::from_secs(30);

#[derive(Debug)]
struct Kept<T> {
    value: T,
    version: Revision,
}

/// The latest sample of an instance and when it came, by this process's clock.
#[derive(Debug, Clone)]
pub(crate) struct Sampled {
    pub(crate) sample: EngineSample,
    pub(crate) received: Instant,
}

/// One point of an instance's meter.
#[derive(Debug, Clone, Copy)]
struct MeterPoint {
    received: Instant,
    measured_mj: u64,
    span_ns: u64,
    /// The engine's counter when the energy came.
    generated_tokens: Option<u64>,
}

/// What an instance has drawn lately.
#[derive(Debug, Default)]
struct Meter {
    points: VecDeque<MeterPoint>,
    source: EnergySource,
}

/// What an instance draws, averaged over the last half minute.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Draw {
    pub(crate) watts: f64,
    /// Measured joules (idle included) per token that the engine generated, if it generated any.
    pub(crate) joules_per_token: Option<f64>,
    pub(crate) source: EnergySource,
}

/// Changes since the last drain.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Changes {
    pub(crate) upserted: Vec<InstanceState>,
    pub(crate) removed: Vec<String>,
    pub(crate) samples: Vec<EngineSample>,
}

/// The copy. Everything is ordered by name.
#[derive(Debug, Default)]
pub(crate) struct Fleet {
    instances: BTreeMap<String, Kept<Instance>>,
    wishes: BTreeMap<String, Kept<InstanceAdmin>>,
    samples: BTreeMap<String, Sampled>,
    meters: BTreeMap<String, Meter>,
    gpus: BTreeMap<(String, String), GpuSample>,
    prices: BTreeMap<String, CongestionPrice>,
    changed: BTreeSet<String>,
    sampled: BTreeSet<String>,
}

impl Fleet {
    /// Takes a put from the store, or one that this process made. Keys outside the two prefixes are left alone.
    pub(crate) fn apply_put(&mut self, entry: &Entry) {
        let (version, value) = (entry.versioned.version, entry.versioned.value.clone());
        if let Some(name) = entry.key.strip_prefix(INSTANCES) {
            match Instance::decode(value) {
                Ok(instance) => keep(&mut self.instances, &mut self.changed, name, instance, version),
                Err(error) => tracing::error!(key = entry.key, %error, "the store holds what is no instance; left out"),
            }
        } else if let Some(name) = entry.key.strip_prefix(WISHES) {
            match InstanceAdmin::decode(value) {
                Ok(wish) => keep(&mut self.wishes, &mut self.changed, name, wish, version),
                Err(error) => tracing::error!(key = entry.key, %error, "the store holds what is no wish; left out"),
            }
        }
    }

    /// Takes a deletion from the store.
    pub(crate) fn apply_delete(&mut self, key: &str, revision: Revision) {
        if let Some(name) = key.strip_prefix(INSTANCES) {
            if forget(&mut self.instances, &mut self.changed, name, revision) {
                self.samples.remove(name);
                self.prices.remove(name);
                self.meters.remove(name);
                self.sampled.remove(name);
                let instances = &self.instances;
                self.gpus
                    .retain(|(node, _), _| instances.values().any(|kept| kept.value.node == *node));
            }
        } else if let Some(name) = key.strip_prefix(WISHES) {
            forget(&mut self.wishes, &mut self.changed, name, revision);
        }
    }

    /// Takes a whole listing of `prefix`: what it lacks is gone.
    pub(crate) fn apply_listing(&mut self, prefix: &str, listing: &Listing) {
        let listed: BTreeSet<&str> = listing.entries.iter().map(|entry| entry.key.as_str()).collect();
        let known: Vec<String> = if prefix == INSTANCES {
            self.instances.keys().map(|name| format!("{INSTANCES}{name}")).collect()
        } else {
            self.wishes.keys().map(|name| format!("{WISHES}{name}")).collect()
        };
        for key in known.iter().filter(|key| !listed.contains(key.as_str())) {
            self.apply_delete(key, listing.revision);
        }
        for entry in &listing.entries {
            self.apply_put(entry);
        }
    }

    /// Takes a sample from the agent of `node`. False if the instance is not that node's, or the sample is not usable.
    pub(crate) fn take_sample(&mut self, node: &str, sample: EngineSample, now: Instant) -> bool {
        let usable = sample.kv_usage.is_finite() && self.belongs(&sample.instance, node);
        if usable {
            let newest = self
                .samples
                .get(&sample.instance)
                .is_none_or(|known| known.sample.unix_ns < sample.unix_ns);
            if newest {
                if sample.healthy {
                    let price = self.prices.entry(sample.instance.clone()).or_default();
                    price.observe(Timestamp(sample.unix_ns), sample.running, sample.waiting);
                }
                self.sampled.insert(sample.instance.clone());
                self.samples
                    .insert(sample.instance.clone(), Sampled { sample, received: now });
            }
        }
        usable
    }

    /// What its last sample says of its health; `None` before the first.
    pub(crate) fn sampled_health(&self, instance: &str) -> Option<bool> {
        self.samples.get(instance).map(|sampled| sampled.sample.healthy)
    }

    /// The congestion prices that are above zero.
    pub(crate) fn prices(&self) -> impl Iterator<Item = (&String, f64)> {
        let prices = self.prices.iter().map(|(name, price)| (name, price.get()));
        prices.filter(|(_, price)| *price > 0.0)
    }

    /// Takes the reading of a GPU of `node`.
    pub(crate) fn take_gpu(&mut self, node: &str, sample: GpuSample) {
        if self.instances.values().any(|kept| kept.value.node == node) {
            self.gpus.insert((node.to_owned(), sample.uuid.clone()), sample);
        }
    }

    /// Notes what an instance drew over an interval.
    pub(crate) fn take_energy(&mut self, energy: &EnergySample, now: Instant) {
        if !self.instances.contains_key(&energy.instance) {
            return;
        }
        let sampled = self
            .samples
            .get(&energy.instance)
            .filter(|sampled| sampled.sample.healthy);
        let meter = self.meters.entry(energy.instance.clone()).or_default();
        meter.source = energy.source();
        meter.points.push_back(MeterPoint {
            received: now,
            measured_mj: energy.measured_mj,
            span_ns: energy.end_unix_ns.saturating_sub(energy.start_unix_ns),
            generated_tokens: sampled.map(|sampled| sampled.sample.generation_tokens_total),
        });
        while meter
            .points
            .front()
            .is_some_and(|point| now.duration_since(point.received) > METER_WINDOW)
        {
            meter.points.pop_front();
        }
    }

    /// Whether `node` registered `instance`.
    pub(crate) fn belongs(&self, instance: &str, node: &str) -> bool {
        self.instances.get(instance).is_some_and(|kept| kept.value.node == node)
    }

    /// An instance's static part.
    pub(crate) fn instance(&self, name: &str) -> Option<&Instance> {
        self.instances.get(name).map(|kept| &kept.value)
    }

    /// The latest sample of an instance.
    pub(crate) fn sampled(&self, name: &str) -> Option<&Sampled> {
        self.samples.get(name)
    }

    /// The GPUs of an instance that were read lately.
    pub(crate) fn gpus_of<'a>(&'a self, instance: &'a Instance) -> impl Iterator<Item = &'a GpuSample> {
        instance
            .gpus
            .iter()
            .filter_map(|uuid| self.gpus.get(&(instance.node.clone(), uuid.clone())))
    }

    /// What an instance draws, if it was metered lately.
    pub(crate) fn draw(&self, name: &str, now: Instant) -> Option<Draw> {
        let meter = self.meters.get(name)?;
        meter
            .points
            .back()
            .filter(|last| now.duration_since(last.received) <= STALE_AFTER)?;
        let recent = || {
            meter
                .points
                .iter()
                .filter(|point| now.duration_since(point.received) <= METER_WINDOW)
        };
        let span_ns: u64 = recent().map(|point| point.span_ns).sum();
        let measured_mj: u64 = recent().map(|point| point.measured_mj).sum();
        let seconds = span_ns as f64 / 1e9;
        let counters = || recent().filter_map(|point| point.generated_tokens);
        let tokens = counters()
            .next_back()
            .zip(counters().next())
            .map_or(0, |(last, first)| last.saturating_sub(first));
        let first_mj = recent().next().map_or(0, |point| point.measured_mj);
        (span_ns > 0).then(|| Draw {
            watts: measured_mj as f64 / 1e3 / seconds,
            // The first counter was read at the end of the first interval.
            joules_per_token: (tokens > 0).then(|| (measured_mj - first_mj) as f64 / 1e3 / tokens as f64),
            source: meter.source,
        })
    }

    /// One instance with its wish and sample.
    pub(crate) fn state(&self, name: &str) -> Option<InstanceState> {
        let instance = self.instance(name)?.clone();
        let admin = self.wishes.get(name).map(|kept| kept.value).unwrap_or_default();
        let sample = self.samples.get(name).map(|sampled| sampled.sample.clone());
        Some(InstanceState {
            instance: Some(instance),
            admin: Some(admin),
            sample,
        })
    }

    /// All instances, by name.
    pub(crate) fn states(&self) -> Vec<InstanceState> {
        self.instances.keys().filter_map(|name| self.state(name)).collect()
    }

    /// The names of all instances.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.instances.keys().map(String::as_str)
    }

    /// How many instances there are, and how many of them answered healthy lately.
    pub(crate) fn counts(&self, now: Instant) -> (usize, usize) {
        let healthy = |name: &&str| {
            let sampled = self.sampled(name);
            sampled.is_some_and(|s| s.sample.healthy && now.duration_since(s.received) <= STALE_AFTER)
        };
        (self.instances.len(), self.names().filter(healthy).count())
    }

    /// What changed since the last call; `None` if nothing.
    pub(crate) fn drain_changes(&mut self) -> Option<Changes> {
        if self.changed.is_empty() && self.sampled.is_empty() {
            return None;
        }
        let (changed, sampled) = (std::mem::take(&mut self.changed), std::mem::take(&mut self.sampled));
        let mut changes = Changes::default();
        for name in &changed {
            match self.state(name) {
                Some(state) => changes.upserted.push(state),
                None => changes.removed.push(name.clone()),
            }
        }
        let latest = sampled.difference(&changed).filter_map(|name| self.samples.get(name));
        changes.samples.extend(latest.map(|sampled| sampled.sample.clone()));
        Some(changes)
    }
}

fn keep<T: PartialEq>(
    table: &mut BTreeMap<String, Kept<T>>,
    changed: &mut BTreeSet<String>,
    name: &str,
    value: T,
    version: Revision,
) {
    match table.get_mut(name) {
        Some(known) if known.version >= version => {}
        Some(known) => {
            if known.value != value {
                changed.insert(name.to_owned());
            }
            *known = Kept { value, version };
        }
        None => {
            changed.insert(name.to_owned());
            table.insert(name.to_owned(), Kept { value, version });
        }
    }
}

/// True if the name was known and is gone now.
fn forget<T>(
    table: &mut BTreeMap<String, Kept<T>>,
    changed: &mut BTreeSet<String>,
    name: &str,
    revision: Revision,
) -> bool {
    // A put that this process made after that deletion stands.
    if table.get(name).is_none_or(|known| known.version > revision) {
        return false;
    }
    table.remove(name);
    changed.insert(name.to_owned());
    true
}

#[cfg(test)]
mod tests;
