//! Approvals on the wire.

use std::collections::BTreeMap;

use fracas_model::{
    access::{self, Right},
    approval::{Asked, Request, Subject},
    target::suffering,
    units::Dur,
};
use fracas_proto::{
    to_json,
    v1::{
        Approval, ApproveRequest, AskApprovalRequest, GetApprovalRequest, ListApprovalsReply, RejectRequest,
        StartRunRequest, WithdrawRequest,
    },
};
use tonic::{Response, Status};

use super::{Act, Api, Reply, reasoned, status};
use crate::{access::Principal, approvals::ApprovalError, runs::Planned};

/// How long an approval holds that no guard-rail asks for.
const VALID: Dur = Dur::from_secs(86_400);
/// Longest note, characters.
const NOTE: usize = 500;

impl Api {
    fn approval_view(&self, id: String, request: &Request) -> Approval {
        let asked_json = request.asked.as_deref().map(to_json).unwrap_or_default();
        self.approval_without(id, request, asked_json)
    }

    fn approval_without(&self, id: String, request: &Request, asked_json: String) -> Approval {
        Approval {
            id,
            asked_json,
            digest: request.digest().unwrap_or_default(),
            standing: request.standing(self.history.now().wall_ns).word().to_owned(),
            by: request.by.clone(),
            asked_wall_ns: request.at_ns,
            approved: request.approved.clone().into_iter().collect(),
            rejected_by: request.rejected.as_ref().map(|(by, _)| by.clone()).unwrap_or_default(),
            rejected_because: request.rejected.as_ref().map(|(_, why)| why.clone()).unwrap_or_default(),
            runs: request.runs.iter().map(ToString::to_string).collect(),
        }
    }

    /// A request that the caller may see, and where it is to run.
    async fn seen_approval(
        &self,
        by: &Principal,
        method: &'static str,
        id: &str,
    ) -> Result<(String, Request, String), Status> {
        let found = self.approvals.find(id).map_err(refused).and_then(|(full, request)| {
            let place = request.asked.as_ref().map(|asked| asked.environment.clone()).unwrap_or_default();
            let seen = by.grants.allow(Right::View, &place);
            let unknown = || refused(ApprovalError::Unknown(id.to_owned()));
            if seen { Ok((full, request, place)) } else { Err(unknown()) }
        });
        match found {
            Ok(found) => Ok(found),
            Err(why) => Err(self.missing(by, method, id, why).await),
        }
    }

    pub(super) async fn asked_approval(&self, by: &Principal, wire: AskApprovalRequest) -> Reply<Approval> {
        let asked = StartRunRequest {
            source: wire.source,
            source_name: wire.source_name,
            parameters: wire.parameters,
            seed: wire.seed,
            environment: wire.environment,
            idempotency_key: String::new(),
            files: wire.files,
        };
        let mut asked = super::runs::asked_for(asked, by)?;
        let act = Act {
            method: "AskApproval",
            needs: &[Right::Design],
            environment: &asked.environment,
            about: &asked.source_name,
        };
        self.may(by, act).await?;
        // What was approved before must not decide the hosts now.
        asked.drawn_anew = true;
        let planned = self.runs.plan(&asked).await.map_err(|e| super::runs::refused(&e))?;
        if !planned.refusals.is_empty() {
            return Err(super::runs::refused(&crate::runs::RunError::Refused(planned.refusals)));
        }
        let rails = self.fleet.rails();
        let rules = rails.asking(&planned.experiment, &asked.environment, &planned.targets);
        let count = rules.iter().map(|rule| rule.count).max().unwrap_or(1);
        let valid = rules.iter().map(|rule| rule.valid_for).min().unwrap_or(VALID);
        let suffer = suffering(&planned.experiment, &planned.targets);
        let subject = if wire.every_run {
            let most = if wire.max_hosts == 0 { suffer.len() as u32 } else { wire.max_hosts };
            Subject::Intent { max_hosts: most }
        } else {
            Subject::Plan { plan: planned.plan.clone(), seed: planned.seed }
        };
        let hosts = planned.hosts.iter().filter(|(id, _)| suffer.contains(id));
        let request = Asked {
            name: planned.experiment.name.clone(),
            source: asked.source,
            source_name: asked.source_name,
            files: asked.files,
            parameters: asked.parameters,
            environment: asked.environment,
            intent: planned.intent.clone(),
            subject,
            hosts: hosts.map(|(id, name)| (id.clone(), name.clone())).collect::<BTreeMap<_, _>>(),
            steps: steps(&planned),
            count,
            rules: rules.iter().map(|rule| rule.name.clone()).collect(),
            expires_ns: self.history.now().wall_ns.saturating_add(valid.ns()),
        };
        let (id, request) = self.approvals.ask(request, &by.id).await.map_err(refused)?;
        Ok(Response::new(self.approval_view(id, &request)))
    }

    pub(super) async fn listed_approvals(&self, by: &Principal) -> Reply<ListApprovalsReply> {
        let act = Act { method: "ListApprovals", needs: &[], environment: access::EVERYWHERE, about: "" };
        self.sees(by, act).await?;
        let seen = |request: &Request| {
            let place = request.asked.as_ref().map_or("", |asked| asked.environment.as_str());
            by.grants.allow(Right::View, place)
        };
        let mut all: Vec<(String, Request)> = self.approvals.all();
        all.retain(|(_, request)| seen(request));
        all.sort_by_key(|(_, request)| std::cmp::Reverse(request.at_ns));
        // Documents are shown one at a time.
        let listed = |asked: &Asked| {
            let (source, files) = (String::new(), BTreeMap::new());
            to_json(&Asked { source, files, ..asked.clone() })
        };
        let view = |(id, request): (String, Request)| {
            let asked = request.asked.as_deref().map(listed).unwrap_or_default();
            self.approval_without(id, &request, asked)
        };
        let approvals = all.into_iter().map(view).collect();
        Ok(Response::new(ListApprovalsReply { approvals }))
    }

    pub(super) async fn shown_approval(&self, by: &Principal, wire: GetApprovalRequest) -> Reply<Approval> {
        let (id, request, place) = self.seen_approval(by, "GetApproval", &wire.id).await?;
        let act = Act { method: "GetApproval", needs: &[Right::View], environment: &place, about: &id };
        self.sees(by, act).await?;
        Ok(Response::new(self.approval_view(id, &request)))
    }

    pub(super) async fn approved(&self, by: &Principal, wire: ApproveRequest) -> Reply<Approval> {
        let (id, _, place) = self.seen_approval(by, "Approve", &wire.id).await?;
        let act = Act { method: "Approve", needs: &[Right::Approve], environment: &place, about: &id };
        self.may(by, act.clone()).await?;
        let approved = self.approvals.approve(&id, &wire.digest, &noted(&wire.note)?, &by.id).await;
        self.decided(by, act, approved).await
    }

    pub(super) async fn rejected(&self, by: &Principal, wire: RejectRequest) -> Reply<Approval> {
        let (id, _, place) = self.seen_approval(by, "Reject", &wire.id).await?;
        let act = Act { method: "Reject", needs: &[Right::Approve], environment: &place, about: &id };
        self.may(by, act.clone()).await?;
        let rejected = self.approvals.reject(&id, &reasoned(wire.reason)?, &by.id).await;
        self.decided(by, act, rejected).await
    }

    /// Whoever asked may, and whoever governs there.
    pub(super) async fn withdrawn(&self, by: &Principal, wire: WithdrawRequest) -> Reply<Approval> {
        let (id, request, place) = self.seen_approval(by, "Withdraw", &wire.id).await?;
        let needs: &[Right] = if request.by == by.id { &[] } else { &[Right::Govern] };
        let act = Act { method: "Withdraw", needs, environment: &place, about: &id };
        self.may(by, act.clone()).await?;
        let withdrawn = self.approvals.withdraw(&id, &by.id).await;
        self.decided(by, act, withdrawn).await
    }

    async fn decided(
        &self,
        by: &Principal,
        act: Act<'_>,
        decided: Result<(String, Request), ApprovalError>,
    ) -> Reply<Approval> {
        match decided {
            Ok((id, request)) => Ok(Response::new(self.approval_view(id, &request))),
            Err(error) => {
                let why = refused(error);
                self.turned_down(by, act, &why).await;
                Err(why)
            }
        }
    }
}

/// What each host said it would do.
fn steps(planned: &Planned) -> Vec<String> {
    let of = |rehearsal: &fracas_model::event::Rehearsal| {
        let item = &rehearsal.item;
        let host = planned.hosts.get(&item.host).map_or(item.host.as_str(), String::as_str);
        let what = rehearsal.plan.as_ref().map_or("nothing", |plan| plan.summary.as_str());
        format!("{host}: {}: {what}", item.entry)
    };
    planned.rehearsals.iter().map(of).collect()
}

pub(super) fn noted(note: &str) -> Result<String, Status> {
    if note.chars().count() > NOTE || note.chars().any(char::is_control) {
        return Err(Status::invalid_argument(format!("a note has at most {NOTE} characters on one line")));
    }
    Ok(note.to_owned())
}

fn refused(error: ApprovalError) -> Status {
    let text = error.to_string();
    match error {
        ApprovalError::Unknown(_) => Status::not_found(text),
        ApprovalError::Several(_) => Status::invalid_argument(text),
        ApprovalError::Not(_) | ApprovalError::OtherDigest => Status::failed_precondition(text),
        ApprovalError::TooManyOfOne | ApprovalError::TooMany => Status::resource_exhausted(text),
        ApprovalError::History(error) => status(&error),
    }
}
