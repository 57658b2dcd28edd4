//! Registrations and wishes in the store: leases, claims on names, read-modify-write.
//!
//! Keys: `instances/NAME` (an `Instance`), `leases/ID` (a node's name and its lease's life) and `nodes/NAME` (the agent that
//! holds the name) stand under the node's lease; `admin/NAME` (an `InstanceAdmin`) stands under none, so that a wish outlives agents and restarts.

use crate::fleet::{INSTANCES, WISHES};
use crate::plane::{Plane, status_of};
use bytes::Bytes;
use equipoise_proto::v1::{Instance, InstanceAdmin, InstanceState};
use equipoise_store::{Entry, Lease, LeaseId, Precondition, StoreError, Versioned};
use prost::Message as _;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};
use tonic::Status;

/// Prefix of the records of leases.
const LEASES: &str = "leases/";
/// Prefix of the claims on nodes' names.
const NODES: &str = "nodes/";
/// How often a read-modify-write is tried before it is given up.
const ATTEMPTS: usize = 8;
/// How long a telemetry stream waits for the renewal of its lease.
const RENEWAL_TIMEOUT: Duration = Duration::from_secs(1);

/// A node's lease as this control plane knows it.
#[derive(Clone, Debug)]
pub(crate) struct NodeLease {
    pub(crate) node: String,
    ttl: Duration,
    /// When its renewal was last tried.
    tried: Instant,
    /// When its node was last heard of.
    seen: Instant,
}

impl NodeLease {
    fn new(node: String, ttl: Duration) -> Self {
        let now = Instant::now();
        Self {
            node,
            ttl,
            tried: now,
            seen: now,
        }
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct LeaseRecord {
    node: String,
    ttl_ms: u64,
}

/// Which agent holds a node's name.
#[derive(Debug, Serialize, Deserialize)]
struct NodeClaim {
    /// The agent's own id; empty where it is not known.
    agent: String,
}

impl NodeClaim {
    /// The claim of `agent` in place of the one found, unless another live agent has it.
    fn over(found: Option<&Versioned>, node: &str, agent: &str) -> Result<Bytes, Status> {
        let held = found.and_then(|found| serde_json::from_slice::<Self>(&found.value).ok());
        if held.is_some_and(|held| !held.agent.is_empty() && !agent.is_empty() && held.agent != agent) {
            return Err(Status::already_exists(format!(
                "node {node:?} is held by another agent: give this one its own name with --node, or stop the other \
                 (one that was killed holds the name until its lease ends)"
            )));
        }
        let claim = serde_json::to_vec(&Self {
            agent: agent.to_owned(),
        });
        claim
            .map(Bytes::from)
            .map_err(|error| Status::internal(error.to_string()))
    }
}

fn lease_key(lease: LeaseId) -> String {
    format!("{LEASES}{lease}")
}

impl Plane {
    /// Puts a node's instances under a new lease, in place of what the node had; refused while another agent holds the
    /// node's name.
    pub(crate) async fn register(
        &self,
        node: &str,
        agent: &str,
        instances: &[Instance],
        wanted: Duration,
    ) -> Result<Lease, Status> {
        // Before a lease is granted, for a refused agent tries every second.
        let held = self.store.get(&format!("{NODES}{node}")).await;
        NodeClaim::over(held.map_err(|error| status_of(&error))?.as_ref(), node, agent)?;
        let before = self.store.list(INSTANCES).await.map_err(|error| status_of(&error))?;
        let mut old_leases = BTreeSet::new();
        let mut left_over = Vec::new();
        for entry in &before.entries {
            let held: Instance = Instance::decode(entry.versioned.value.clone()).unwrap_or_default();
            if held.node == node {
                old_leases.extend(entry.versioned.lease);
                let kept = instances.iter().any(|instance| instance.name == held.name);
                if !kept && entry.versioned.lease.is_none() {
                    left_over.push(entry);
                }
            } else if instances.iter().any(|instance| instance.name == held.name) {
                return Err(claimed(&held));
            }
        }
        old_leases.extend(
            self.leases
                .iter()
                .filter(|held| held.node == node)
                .map(|held| *held.key()),
        );
        let ttl = wanted.clamp(self.config.shortest_lease, self.config.longest_lease);
        let lease = self.store.grant_lease(ttl).await.map_err(|error| status_of(&error))?;
        if let Err(status) = self.put_under(lease, node, agent, instances).await {
            // Half a registration helps nobody.
            drop(self.store.revoke_lease(lease.id).await);
            return Err(status);
        }
        // What the node no longer has stands under its old lease still, and ends with it.
        for old in old_leases {
            self.leases.remove(&old);
            self.store.revoke_lease(old).await.map_err(|error| status_of(&error))?;
        }
        for entry in left_over {
            let unchanged = Precondition::MatchesVersion(entry.versioned.version);
            self.store
                .delete(&entry.key, unchanged)
                .await
                .map_err(|error| status_of(&error))?;
        }
        self.leases.insert(lease.id, NodeLease::new(node.to_owned(), lease.ttl));
        self.changed.notify_one();
        Ok(lease)
    }

    async fn put_under(&self, lease: Lease, node: &str, agent: &str, instances: &[Instance]) -> Result<(), Status> {
        let claim = |found: Option<&Versioned>| NodeClaim::over(found, node, agent);
        self.read_modify_write(&format!("{NODES}{node}"), Some(lease.id), claim)
            .await?;
        let ttl_ms = u64::try_from(lease.ttl.as_millis()).unwrap_or(u64::MAX);
        let record = serde_json::to_vec(&LeaseRecord {
            node: node.to_owned(),
            ttl_ms,
        })
        .map_err(|error| Status::internal(error.to_string()))?;
        self.store
            .put(&lease_key(lease.id), record.into(), Precondition::None, Some(lease.id))
            .await
            .map_err(|error| status_of(&error))?;
        for instance in instances {
            let key = format!("{INSTANCES}{}", instance.name);
            let value = Bytes::from(instance.encode_to_vec());
            let claim = |found: Option<&Versioned>| match found.map(|found| Instance::decode(found.value.clone())) {
                Some(Ok(held)) if held.node != node => Err(claimed(&held)),
                _ => Ok(value.clone()),
            };
            self.read_modify_write(&key, Some(lease.id), claim).await?;
        }
        Ok(())
    }

    /// Writes what `change` makes of the present value, and applies it to this process's copy at once.
    async fn read_modify_write(
        &self,
        key: &str,
        lease: Option<LeaseId>,
        change: impl Fn(Option<&Versioned>) -> Result<Bytes, Status>,
    ) -> Result<(), Status> {
        for _ in 0..ATTEMPTS {
            let found = self.store.get(key).await.map_err(|error| status_of(&error))?;
            let value = change(found.as_ref())?;
            let precondition = match &found {
                Some(found) => Precondition::MatchesVersion(found.version),
                None => Precondition::DoesNotExist,
            };
            match self.store.put(key, value.clone(), precondition, lease).await {
                Ok(version) => {
                    let entry = Entry {
                        key: key.to_owned(),
                        versioned: Versioned { value, version, lease },
                    };
                    self.routing.lock().fleet.apply_put(&entry);
                    self.changed.notify_one();
                    return Ok(());
                }
                Err(StoreError::PreconditionFailed { .. }) => {}
                Err(error) => return Err(status_of(&error)),
            }
        }
        Err(Status::aborted(format!(
            "{key:?} kept changing while it was written: try again"
        )))
    }

    /// Changes an operator's wish for an instance that is registered.
    pub(crate) async fn set_wish(
        &self,
        name: &str,
        change: impl Fn(&mut InstanceAdmin),
    ) -> Result<InstanceState, Status> {
        self.known(name)?;
        let update = |found: Option<&Versioned>| {
            let mut wish = match found {
                Some(found) => InstanceAdmin::decode(found.value.clone())
                    .map_err(|error| Status::internal(format!("the wish for {name:?} does not decode: {error}")))?,
                None => InstanceAdmin::default(),
            };
            change(&mut wish);
            Ok(Bytes::from(wish.encode_to_vec()))
        };
        self.read_modify_write(&format!("{WISHES}{name}"), None, update).await?;
        self.known(name)
    }

    /// An instance, or NOT_FOUND with names that may have been meant.
    pub(crate) fn known(&self, name: &str) -> Result<InstanceState, Status> {
        let fleet = &self.routing.lock().fleet;
        fleet.state(name).ok_or_else(|| {
            let near = crate::fleet::near_names(name, fleet.names());
            let offer = if near.is_empty() {
                String::new()
            } else {
                format!("; did you mean {}?", near.join(", "))
            };
            Status::not_found(format!("no instance is named {name:?}{offer}"))
        })
    }

    /// The node that holds a lease.
    pub(crate) async fn holder(&self, lease: LeaseId) -> Result<String, Status> {
        if let Some(mut held) = self.leases.get_mut(&lease) {
            held.seen = Instant::now();
            return Ok(held.node.clone());
        }
        Ok(self.adopt(lease).await?.node)
    }

    /// Renews a lease if a third of its life has passed since it was last tried.
    pub(crate) async fn renew(&self, lease: LeaseId) -> Result<(), Status> {
        match self.leases.get_mut(&lease) {
            Some(mut held) if held.tried.elapsed() * 3 >= held.ttl => held.tried = Instant::now(),
            _ => return Ok(()),
        }
        match tokio::time::timeout(RENEWAL_TIMEOUT, self.store.keep_alive(lease)).await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error @ StoreError::LeaseGone { .. })) => {
                self.leases.remove(&lease);
                return Err(status_of(&error));
            }
            Ok(Err(error)) => tracing::warn!(%lease, %error, "cannot renew a lease"),
            Err(_) => tracing::warn!(%lease, "renewing a lease took too long"),
        }
        // The store may come back before the lease ends; the agent's data is good meanwhile.
        self.metrics.store_errors.inc();
        Ok(())
    }

    /// Takes over a lease that this process did not grant: it restarted, or another control plane did.
    async fn adopt(&self, lease: LeaseId) -> Result<NodeLease, Status> {
        let found = self
            .store
            .get(&lease_key(lease))
            .await
            .map_err(|error| status_of(&error))?;
        let found = found.ok_or_else(|| status_of(&StoreError::LeaseGone { lease }))?;
        let record: LeaseRecord = serde_json::from_slice(&found.value)
            .map_err(|error| Status::internal(format!("the record of lease {lease} does not decode: {error}")))?;
        self.store.keep_alive(lease).await.map_err(|error| status_of(&error))?;
        let held = NodeLease::new(record.node, Duration::from_millis(record.ttl_ms));
        self.leases.insert(lease, held.clone());
        Ok(held)
    }

    /// Ends a lease: its instances vanish.
    pub(crate) async fn deregister(&self, lease: LeaseId) -> Result<(), Status> {
        self.leases.remove(&lease);
        self.store.revoke_lease(lease).await.map_err(|error| status_of(&error))
    }

    /// Forgets leases whose node has been silent for more than their life; the store ends them by itself.
    pub(crate) fn forget_silent_leases(&self) {
        self.leases.retain(|_, held| held.seen.elapsed() <= held.ttl * 2);
    }
}

fn claimed(held: &Instance) -> Status {
    Status::already_exists(format!(
        "instance {:?} is registered by node {:?}: give it another name, or stop that node's agent",
        held.name, held.node
    ))
}
