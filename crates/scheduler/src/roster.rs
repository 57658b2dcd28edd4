//! The instances that a policy may take that looks at loads alone, kept from one decision to the next.
//!
//! Such a policy asks for little that time changes: whether an instance takes requests, how many it has, its weight. So only
//! instances that have changed since the last decision are looked at, and those of which time alone may make something
//! else ([`Instance::is_restless`]). Does not belong here: anything that depends on the request.

use equipoise_fleet::{Fleet, Instance};
use equipoise_policy::{LoadRow, Request, Targeted, check_instance, is_saturated};
use equipoise_types::{InstanceId, ModelId, Timestamp};

/// What one instance does for requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seat {
    /// It takes none.
    Out,
    /// It takes some, and has no room now.
    Full,
    /// It has room.
    Open,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    seat: Seat,
    model: ModelId,
    context_tokens: Option<u32>,
    restless: bool,
}

impl Entry {
    /// Of an instance that was not looked at yet.
    const UNKNOWN: Self = Self {
        seat: Seat::Out,
        model: ModelId(u32::MAX),
        context_tokens: None,
        restless: false,
    };
}

/// What all that take requests have in common.
#[derive(Clone, Copy, Debug, Default)]
struct Common {
    /// The shortest context, where any is bounded.
    context_tokens: Option<u32>,
    /// The model of all of them, where it is one.
    model: Option<ModelId>,
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub(crate) struct Roster {
    /// Whether instances without a free slot are left out.
    leaves_full: bool,
    /// By instance.
    entries: Vec<Entry>,
    /// Those with room, by id.
    rows: Vec<LoadRow>,
    /// How many have none.
    full: usize,
    restless: Vec<InstanceId>,
    common: Common,
    /// Restless ones and what is common are to be found anew.
    stale: bool,
}

/// What there is for a request.
pub(crate) enum Room<'a> {
    /// One of these, at least one.
    At(&'a [LoadRow]),
    /// All are full.
    Full,
    /// That depends on the request, or nobody is there.
    Unsure,
}

impl Roster {
    /// Brings it up to `now`; the fleet's changes are forgotten.
    pub(crate) fn renew(&mut self, now: Timestamp, fleet: &mut Fleet, leaves_full: bool) {
        if self.leaves_full != leaves_full || self.entries.is_empty() {
            *self = Self {
                leaves_full,
                ..Self::default()
            };
            for instance in fleet.iter() {
                self.look(now, fleet, instance);
            }
        } else {
            let restless = std::mem::take(&mut self.restless);
            for id in fleet.changed().iter().chain(&restless) {
                if let Some(instance) = fleet.instance(*id) {
                    self.look(now, fleet, instance);
                }
            }
            self.restless = restless;
        }
        fleet.forget_changes();
        if std::mem::take(&mut self.stale) {
            self.summarise();
        }
    }

    fn summarise(&mut self) {
        let entries = || (0..).map(InstanceId).zip(&self.entries);
        let restless = entries().filter(|(_, entry)| entry.restless);
        let restless = restless.map(|(id, _)| id).collect();
        let there = || self.entries.iter().filter(|entry| entry.seat != Seat::Out);
        let first = there().next().map(|entry| entry.model);
        self.common = Common {
            context_tokens: there().filter_map(|entry| entry.context_tokens).min(),
            model: first.filter(|model| there().all(|entry| entry.model == *model)),
        };
        self.restless = restless;
    }

    fn look(&mut self, now: Timestamp, fleet: &Fleet, instance: &Instance) {
        let in_flight = fleet.load(now, instance).in_flight;
        let full = || self.leaves_full && is_saturated(in_flight, instance.slots(now), &fleet.peers(now, instance));
        let seat = if check_instance(now, fleet, instance).is_err() {
            Seat::Out
        } else if full() {
            Seat::Full
        } else {
            Seat::Open
        };
        let entry = Entry {
            seat,
            model: instance.model,
            context_tokens: instance.spec.model.context_tokens,
            restless: instance.is_restless(now),
        };
        let index = instance.id.index();
        if self.entries.len() <= index {
            self.entries.resize(index + 1, Entry::UNKNOWN);
        }
        let before = std::mem::replace(&mut self.entries[index], entry);
        let lasting = |entry: Entry| Entry {
            seat: if entry.seat == Seat::Full {
                Seat::Open
            } else {
                entry.seat
            },
            ..entry
        };
        self.stale |= lasting(before) != lasting(entry);
        self.full += usize::from(seat == Seat::Full);
        self.full -= usize::from(before.seat == Seat::Full);
        let row = LoadRow::new(instance.id, in_flight, instance.weight);
        match (self.rows.binary_search_by_key(&instance.id, |row| row.instance), seat) {
            (Ok(place), Seat::Open) => self.rows[place] = row,
            (Ok(place), _) => _ = self.rows.remove(place),
            (Err(place), Seat::Open) => self.rows.insert(place, row),
            (Err(_), _) => {}
        }
    }

    /// Where a request without wishes may go.
    pub(crate) fn room(&self, request: &Request, targeted: Targeted) -> Room<'_> {
        let all = match targeted {
            Targeted::Any => true,
            Targeted::Only(model) => model.is_some() && model == self.common.model,
        };
        // An answer of unknown length needs at least one token.
        let wanted = u64::from(request.prompt_tokens) + u64::from(request.max_output_tokens.unwrap_or(1).max(1));
        let fits = self
            .common
            .context_tokens
            .is_none_or(|context| wanted <= u64::from(context));
        if !all || !fits {
            Room::Unsure
        } else if !self.rows.is_empty() {
            Room::At(&self.rows)
        } else if self.full > 0 {
            Room::Full
        } else {
            Room::Unsure
        }
    }

    /// For every model with room, the first instance that has it.
    pub(crate) fn of_models(&self) -> impl Iterator<Item = (ModelId, InstanceId)> + '_ {
        let model_of = |row: &LoadRow| self.entries[row.instance.index()].model;
        let firsts = self.rows.iter().enumerate().filter(move |(place, row)| {
            let model = model_of(row);
            !self.rows[..*place].iter().any(|earlier| model_of(earlier) == model)
        });
        let rows = if self.common.model.is_some() {
            1
        } else {
            self.rows.len()
        };
        firsts.take(rows).map(move |(_, row)| (model_of(row), row.instance))
    }
}
