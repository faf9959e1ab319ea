//! Calls about approvals.

use std::collections::BTreeMap;

use fracas_model::{approval::Asked, id::RunId};
use fracas_proto::v1;
use serde::Serialize;

use super::{Client, ClientError, Submission};

/// A request for approval.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ApprovalSummary {
    /// Its id.
    pub id: String,
    /// What was asked for.
    pub asked: Asked,
    /// What an approver agrees to.
    pub digest: String,
    /// `waiting`, `approved`, `used`, `rejected`, `withdrawn`, `expired`.
    pub standing: String,
    /// Who asked.
    pub by: String,
    /// When, wall nanoseconds.
    pub asked_wall_ns: i64,
    /// Who approved, with their notes.
    pub approved: BTreeMap<String, String>,
    /// Who did not agree; empty: nobody.
    pub rejected_by: String,
    /// Why not.
    pub rejected_because: String,
    /// Runs that were started by it.
    pub runs: Vec<RunId>,
}

impl Client {
    /// Asks others to approve a run, or with `every_run` every run of the document on at most so many hosts (0: as many as
    /// are drawn now).
    pub async fn ask_approval(
        &self,
        what: Submission,
        every_run: bool,
        max_hosts: u32,
    ) -> Result<ApprovalSummary, ClientError> {
        let request = v1::AskApprovalRequest {
            source: what.source,
            source_name: what.source_name,
            parameters: what.parameters.into_iter().collect(),
            seed: what.seed,
            environment: what.environment,
            every_run,
            max_hosts,
            files: what.files.into_iter().collect(),
        };
        let reply = self.calls.clone().ask_approval(request).await.map_err(|e| self.error(&e))?;
        self.approval_of(reply.into_inner())
    }

    /// All that the caller may see, newest first.
    pub async fn approvals(&self) -> Result<Vec<ApprovalSummary>, ClientError> {
        let reply = self.calls.clone().list_approvals(v1::ListApprovalsRequest {}).await.map_err(|e| self.error(&e))?;
        reply.into_inner().approvals.into_iter().map(|one| self.approval_of(one)).collect()
    }

    /// One of them, by id or unique prefix.
    pub async fn approval(&self, id: &str) -> Result<ApprovalSummary, ClientError> {
        let request = v1::GetApprovalRequest { id: id.to_owned() };
        let reply = self.calls.clone().get_approval(request).await.map_err(|e| self.error(&e))?;
        self.approval_of(reply.into_inner())
    }

    /// Agrees to exactly what has this digest.
    pub async fn approve(&self, id: &str, digest: &str, note: &str) -> Result<ApprovalSummary, ClientError> {
        let request = v1::ApproveRequest { id: id.to_owned(), digest: digest.to_owned(), note: note.to_owned() };
        let reply = self.calls.clone().approve(request).await.map_err(|e| self.error(&e))?;
        self.approval_of(reply.into_inner())
    }

    /// Does not agree.
    pub async fn reject(&self, id: &str, reason: &str) -> Result<ApprovalSummary, ClientError> {
        let request = v1::RejectRequest { id: id.to_owned(), reason: reason.to_owned() };
        let reply = self.calls.clone().reject(request).await.map_err(|e| self.error(&e))?;
        self.approval_of(reply.into_inner())
    }

    /// Takes a request back.
    pub async fn withdraw(&self, id: &str) -> Result<ApprovalSummary, ClientError> {
        let request = v1::WithdrawRequest { id: id.to_owned() };
        let reply = self.calls.clone().withdraw(request).await.map_err(|e| self.error(&e))?;
        self.approval_of(reply.into_inner())
    }

    fn approval_of(&self, one: v1::Approval) -> Result<ApprovalSummary, ClientError> {
        Ok(ApprovalSummary {
            id: one.id,
            asked: self.decode("an approval", one.asked_json.as_bytes())?,
            digest: one.digest,
            standing: one.standing,
            by: one.by,
            asked_wall_ns: one.asked_wall_ns,
            approved: one.approved.into_iter().collect(),
            rejected_by: one.rejected_by,
            rejected_because: one.rejected_because,
            runs: one.runs.into_iter().map(RunId::new).collect(),
        })
    }
}
