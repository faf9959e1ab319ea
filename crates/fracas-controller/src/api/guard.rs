//! Guard-rails on the wire.

use fracas_model::{
    access::{self, Right},
    event::Body,
    guard::read_guard_rails,
};
use fracas_proto::{
    to_json,
    v1::{GuardRails, SetGuardRailsRequest},
};
use tonic::{Response, Status};

use super::{Act, Api, MAX_SOURCE, Reply, status};
use crate::access::Principal;

impl Api {
    pub(super) async fn rails(&self, by: &Principal) -> Reply<GuardRails> {
        let act = Act { method: "GetGuardRails", needs: &[], environment: access::EVERYWHERE, about: "" };
        self.sees(by, act).await?;
        let mut told = GuardRails { rails_json: to_json(&*self.fleet.rails()), ..GuardRails::default() };
        let events = self.history.read(self.audit.stream(), 0).await.map_err(|e| status(&e))?;
        let last = events.into_iter().rev().find_map(|event| match event.body {
            Body::GuardRailsSet { source, by, at, .. } => Some((source, by, at.wall_ns)),
            _ => None,
        });
        if let Some((source, by, at_wall_ns)) = last {
            told = GuardRails { source, by, at_wall_ns, ..told };
        }
        Ok(Response::new(told))
    }

    pub(super) async fn rails_set(&self, by: &Principal, wire: SetGuardRailsRequest) -> Reply<GuardRails> {
        let needs = &[Right::Govern];
        let act = Act { method: "SetGuardRails", needs, environment: access::EVERYWHERE, about: &wire.source_name };
        self.may(by, act).await?;
        if wire.source.len() > MAX_SOURCE {
            return Err(Status::invalid_argument("the document is larger than 1 MiB"));
        }
        let (rails, _) = read_guard_rails(&wire.source_name, &wire.source).map_err(|wrong| {
            let text = wrong.iter().map(|d| d.message.clone()).collect::<Vec<_>>().join("\n");
            Status::with_details(tonic::Code::InvalidArgument, text, to_json(&wrong).into_bytes().into())
        })?;
        let at = self.history.now();
        let told = GuardRails {
            rails_json: to_json(&rails),
            source: wire.source.clone(),
            by: by.id.clone(),
            at_wall_ns: at.wall_ns,
        };
        // In the order of the record, and before the next run takes its hosts.
        let _starts = self.runs.hold_starts().await;
        let set = Body::GuardRailsSet { rails: rails.clone(), source: wire.source, by: by.id.clone(), at };
        self.append_audit(set).await?;
        self.fleet.set_rails(rails);
        Ok(Response::new(told))
    }
}
