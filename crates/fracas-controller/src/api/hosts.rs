//! Hosts on the wire: the fleet as a list, labels, environments, cordons, join tokens, and the end of old ones.

use std::collections::BTreeMap;

use fracas_model::{
    access::{self, Right},
    event::Body,
    id::HostId,
    selector::Selector,
};
use fracas_proto::{
    to_json,
    v1::{
        CordonHostReply, CordonHostRequest, ForgetHostReply, Host, HostRequest, LabelHostRequest, ListHostsReply,
        MakeJoinTokenReply, MakeJoinTokenRequest, MoveHostRequest,
    },
};
use tonic::{Response, Status};

use super::{Act, Api, Reply, environment, reasoned, status};
use crate::{
    access::Principal, controller::revocation, driver::stream_of_host, enrol::ENVIRONMENT_LABEL, fleet::HostRecord,
};

/// Life of a join token when none is asked for, and the longest, seconds.
const TOKEN_SECONDS: (u32, u32) = (1800, 30 * 86_400);

impl Api {
    fn host_view(&self, id: &HostId, record: &HostRecord) -> Host {
        let now_s = self.history.now().wall_ns.div_euclid(1_000_000_000);
        Host {
            id: id.to_string(),
            name: record.name.clone(),
            connected: record.connected,
            labels: record.all_labels().into_iter().collect(),
            facts_json: record.facts.as_ref().map(to_json).unwrap_or_default(),
            last_seen_wall_ns: record.last_seen.as_ref().map_or(0, |at| at.wall_ns),
            runs: self.fleet.runs_on(id).iter().map(ToString::to_string).collect(),
            quarantined: record.quarantined.as_ref().map_or_else(|| record.trouble.clone(), ToString::to_string),
            observer: record.observer,
            environment: record.environment().to_owned(),
            cordoned: record.cordoned.clone().unwrap_or_default(),
            revoked: record.revoked.clone().unwrap_or_default(),
            duplicate: record.duplicate.clone().unwrap_or_default(),
            address: record.address.clone(),
            certificate_until_s: record.certificate.map_or(0, |validity| validity.until_s),
            certificate_low: record.certificate.is_some_and(|validity| validity.is_low(now_s)),
        }
    }

    fn host_reply(&self, id: &HostId) -> Reply<Host> {
        let hosts = self.fleet.hosts();
        let record = hosts.get(id).ok_or_else(|| Status::not_found("the host is gone"))?;
        Ok(Response::new(self.host_view(id, record)))
    }

    /// A host of this name, id or prefix, among those that the caller may see.
    fn find_host(&self, by: &Principal, host: &str) -> Result<(HostId, HostRecord), Status> {
        let hosts = self.fleet.hosts();
        let seen = |(_, record): &(HostId, HostRecord)| by.grants.allow(Right::View, record.environment());
        let seen: Vec<(HostId, HostRecord)> = hosts.into_iter().filter(seen).collect();
        let exact = |(id, record): &(HostId, HostRecord)| record.name == host || id.as_str() == host;
        let prefix = |(id, _): &(HostId, HostRecord)| !host.is_empty() && id.as_str().starts_with(host);
        // A host that is called `c` is meant by that, whatever ids begin with it.
        let named = seen.iter().any(exact);
        let mut found = seen.into_iter().filter(|one| if named { exact(one) } else { prefix(one) });
        match (found.next(), found.next()) {
            (Some(found), None) => Ok(found),
            (None, _) => Err(Status::not_found(format!("no host `{host}`: `fracas hosts` lists them"))),
            _ => Err(Status::invalid_argument(format!("`{host}` names several hosts: use the id"))),
        }
    }

    /// The host, if the caller may do this to it.
    async fn acts_on(&self, by: &Principal, method: &'static str, host: &str) -> Result<(HostId, HostRecord), Status> {
        let (id, record) = match self.find_host(by, host) {
            Ok(found) => found,
            Err(why) => return Err(self.missing(by, method, host, why).await),
        };
        let act = Act { method, needs: &[Right::Hosts], environment: record.environment(), about: id.as_str() };
        self.may(by, act).await?;
        Ok((id, record))
    }

    pub(super) async fn listed_hosts(&self, by: &Principal, selector: &str) -> Reply<ListHostsReply> {
        let act = Act { method: "ListHosts", needs: &[], environment: access::EVERYWHERE, about: "" };
        self.sees(by, act).await?;
        let selector = if selector.trim().is_empty() { None } else { Some(selector.parse::<Selector>()) };
        let selector = selector.transpose().map_err(|e| Status::invalid_argument(e.to_string()))?;
        let hosts = self.fleet.hosts();
        let matching = hosts
            .iter()
            .filter(|(_, record)| by.grants.allow(Right::View, record.environment()))
            .filter(|(_, record)| selector.as_ref().is_none_or(|s| s.matches(&record.all_labels())));
        Ok(Response::new(ListHostsReply { hosts: matching.map(|(id, r)| self.host_view(id, r)).collect() }))
    }

    pub(super) async fn labelled(&self, by: &Principal, wire: LabelHostRequest) -> Reply<Host> {
        let (id, _) = self.acts_on(by, "LabelHost", &wire.host).await?;
        let labels: BTreeMap<String, String> = wire.set.into_iter().collect();
        settable(labels.keys().chain(&wire.remove))?;
        valid(&labels)?;
        let set = labels;
        let _starts = self.runs.hold_starts().await;
        let mut labels = self.fleet.hosts().get(&id).map(|record| record.labels.clone()).unwrap_or_default();
        labels.extend(set);
        labels.retain(|key, _| !wire.remove.contains(key));
        self.relabelled(id, labels, by).await
    }

    async fn relabelled(&self, id: HostId, labels: BTreeMap<String, String>, by: &Principal) -> Reply<Host> {
        let body = Body::HostLabelled { labels: labels.clone(), by: by.id.clone(), at: self.history.now() };
        self.history.append(&stream_of_host(&id), vec![body]).await.map_err(|e| status(&e))?;
        self.fleet.record(&id, |record| record.labels = labels);
        self.host_reply(&id)
    }

    pub(super) async fn moved(&self, by: &Principal, wire: MoveHostRequest) -> Reply<Host> {
        let (id, record) = self.acts_on(by, "MoveHost", &wire.host).await?;
        let to = environment(&wire.environment)?;
        let act = Act { method: "MoveHost", needs: &[Right::Hosts], environment: &to, about: id.as_str() };
        self.may(by, act).await?;
        // What was found before may have changed since, and no run may take it now.
        let _starts = self.runs.hold_starts().await;
        let record = self.fleet.hosts().remove(&id).unwrap_or(record);
        if let Some(run) = &record.taken {
            let why = format!("run {run} has host {}: wait for its end, or stop it", record.name);
            return Err(Status::failed_precondition(why));
        }
        if record.observer {
            return Err(Status::failed_precondition("the controller's observer is of every environment"));
        }
        let mut labels = record.labels;
        labels.insert(ENVIRONMENT_LABEL.to_owned(), to);
        self.relabelled(id, labels, by).await
    }

    pub(super) async fn cordoned(&self, by: &Principal, wire: CordonHostRequest) -> Reply<CordonHostReply> {
        let method = if wire.drain { "DrainHost" } else { "CordonHost" };
        let (id, _) = self.acts_on(by, method, &wire.host).await?;
        let reason = reasoned(wire.reason)?;
        let (by, drain) = (by.id.clone(), wire.drain);
        let body = Body::HostCordoned { by: by.clone(), reason: reason.clone(), at: self.history.now() };
        self.history.append(&stream_of_host(&id), vec![body]).await.map_err(|e| status(&e))?;
        self.fleet.record(&id, |record| record.cordoned = Some(reason.clone()));
        // Whoever was just being started looks at the cordon again.
        self.runs.settle_starts().await;
        let mut runs = Vec::new();
        if drain && let Some(run) = self.fleet.hosts().get(&id).and_then(|record| record.taken.clone()) {
            let why = format!("host {id} is drained: {reason}");
            self.runs.stop(&run, &by, &why).await.map_err(|e| status(&e))?;
            runs.push(run.to_string());
        }
        Ok(Response::new(CordonHostReply { host: Some(self.host_reply(&id)?.into_inner()), runs }))
    }

    pub(super) async fn uncordoned(&self, by: &Principal, wire: HostRequest) -> Reply<Host> {
        let (id, record) = self.acts_on(by, "UncordonHost", &wire.host).await?;
        if record.cordoned.is_none() {
            return Err(Status::failed_precondition(format!("host {} is not cordoned", record.name)));
        }
        let by = by.id.clone();
        let body = Body::HostUncordoned { by, at: self.history.now() };
        self.history.append(&stream_of_host(&id), vec![body]).await.map_err(|e| status(&e))?;
        self.fleet.record(&id, |record| record.cordoned = None);
        self.host_reply(&id)
    }

    pub(super) async fn forgotten(&self, by: &Principal, wire: HostRequest) -> Reply<ForgetHostReply> {
        let (id, record) = self.acts_on(by, "ForgetHost", &wire.host).await?;
        let (name, reason) = (record.name, reasoned(wire.reason)?);
        let by = by.id.clone();
        self.fleet.forget_host(&id).map_err(|e| Status::failed_precondition(e.to_string()))?;
        let body = Body::HostForgotten { by, reason, at: self.history.now() };
        if let Err(error) = self.history.append(&stream_of_host(&id), vec![body]).await {
            self.fleet.keep_host(&id);
            return Err(status(&error));
        }
        self.fleet.drop_host(&id);
        tracing::info!(host = %id, name, "host forgotten");
        Ok(Response::new(ForgetHostReply { id: id.to_string(), name }))
    }

    pub(super) async fn written_off(&self, by: &Principal, wire: HostRequest) -> Reply<Host> {
        let (id, record) = self.acts_on(by, "WriteOffHost", &wire.host).await?;
        let reason = reasoned(wire.reason)?;
        let quarantined = record.quarantined.clone();
        if quarantined.is_none() {
            return Err(Status::failed_precondition(match record.distrust() {
                // Not for anybody's word: the agent itself takes no orders.
                Some(why) => format!("host {} cannot be written off from here: {why}", wire.host),
                None => format!("host {} is not quarantined", wire.host),
            }));
        }
        let why = format!("written off by {}: {reason}", by.id);
        let body = Body::HostReleased { why, at: self.history.now() };
        self.history.append(&stream_of_host(&id), vec![body]).await.map_err(|e| status(&e))?;
        self.fleet.record(&id, |record| record.quarantined = None);
        tracing::warn!(host = %id, run = ?quarantined, "quarantine ended on the word of a person");
        self.host_reply(&id)
    }

    pub(super) async fn revoked(&self, by: &Principal, wire: HostRequest) -> Reply<Host> {
        let (id, record) = self.acts_on(by, "RevokeHost", &wire.host).await?;
        let reason = reasoned(wire.reason)?;
        if let Some(why) = record.revoked {
            return Err(Status::failed_precondition(format!("host {} is revoked already: {why}", record.name)));
        }
        if record.observer {
            let why = "the controller's observer runs within the controller: start that with --no-observer instead";
            return Err(Status::failed_precondition(why));
        }
        let body = Body::HostRevoked { by: by.id.clone(), reason: reason.clone(), at: self.history.now() };
        self.history.append(&stream_of_host(&id), vec![body]).await.map_err(|e| status(&e))?;
        self.fleet.revoke(&id, &revocation(&by.id, &reason));
        tracing::warn!(host = %id, name = record.name, reason, "host revoked");
        self.host_reply(&id)
    }

    pub(super) async fn trusted(&self, by: &Principal, wire: HostRequest) -> Reply<Host> {
        let (id, record) = self.acts_on(by, "TrustHost", &wire.host).await?;
        let reason = reasoned(wire.reason)?;
        if record.duplicate.is_none() {
            return Err(Status::failed_precondition(format!("host {} does not seem to be two", record.name)));
        }
        let body = Body::HostTrusted { by: by.id.clone(), reason, at: self.history.now() };
        self.history.append(&stream_of_host(&id), vec![body]).await.map_err(|e| status(&e))?;
        self.fleet.trust(&id);
        self.host_reply(&id)
    }

    pub(super) async fn join_token(&self, by: &Principal, wire: MakeJoinTokenRequest) -> Reply<MakeJoinTokenReply> {
        let place = environment(&wire.environment)?;
        let act = Act { method: "MakeJoinToken", needs: &[Right::Hosts], environment: &place, about: "" };
        self.may(by, act).await?;
        let mut labels: BTreeMap<String, String> = wire.labels.into_iter().collect();
        settable(labels.keys())?;
        valid(&labels)?;
        labels.insert(ENVIRONMENT_LABEL.to_owned(), place);
        let ttl = match wire.ttl_seconds {
            0 => TOKEN_SECONDS.0,
            asked => asked.min(TOKEN_SECONDS.1),
        };
        let made = self.gate.make(ttl, labels, &by.id).await.map_err(|e| status(&e))?;
        Ok(Response::new(MakeJoinTokenReply { token: made.text, expires_wall_ns: made.expires_wall_ns }))
    }
}

/// Labels under these prefixes are not for operators to set.
fn settable<'a>(mut keys: impl Iterator<Item = &'a String>) -> Result<(), Status> {
    match keys.find(|key| key.starts_with("fact/") || key.starts_with("fracas/")) {
        None => Ok(()),
        Some(key) => {
            let whose = if key.starts_with("fact/") { "the agent's own" } else { "the controller's own" };
            Err(Status::invalid_argument(format!("label {key} is {whose}: choose a name without that prefix")))
        }
    }
}

/// Whether every label could be selected.
fn valid(labels: &BTreeMap<String, String>) -> Result<(), Status> {
    for (key, value) in labels {
        format!("{key}={value}")
            .parse::<Selector>()
            .map_err(|e| Status::invalid_argument(format!("label {key}={value}: {e}")))?;
    }
    Ok(())
}
