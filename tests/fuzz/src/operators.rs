//! What operators may ask, whatever they may: each request of the service, one after the other, on one controller.

use std::time::Duration;

use fracas_controller::{
    access::Principal,
    api::{Api, Parts},
    approvals::Approvals,
    audit::Audit,
    controller::Controller,
    people::{Directory, People},
    runs::Runs,
    schedules::Schedules,
    store::memory::MemoryStore,
};
use fracas_model::access::{Grant, Grants, Role};
use fracas_proto::v1::{self, operator_server::Operator as _};
use prost::Message;
use tokio_stream::StreamExt as _;
use tonic::Request;

use crate::{Target, world};

pub(crate) const OPERATOR: Target = Target { name: "operator", take, seeds };

/// Calls of one input.
const MOST: usize = 12;

/// Each call by its number: decoded, asked, and its answer measured.
macro_rules! calls {
    ($($number:literal => $method:ident($request:ident)),* $(,)?) => {
        async fn call(api: &Api, number: u8, by: &Principal, bytes: &[u8]) {
            match number % COUNT {
                $($number => if let Ok(message) = v1::$request::decode(bytes)
                    && let Ok(answer) = api.$method(asked(by, message)).await
                {
                    let length = answer.into_inner().encoded_len();
                    assert!(length < world::LONGEST, "{}: an answer of {length} bytes", stringify!($method));
                },)*
                _ => watch(api, by, bytes).await,
            }
        }

        /// Without the call that is a stream.
        const COUNT: u8 = 1 + [$($number),*].len() as u8;

        fn empty() -> Vec<(u8, Vec<u8>)> {
            vec![$(($number, v1::$request::default().encode_to_vec())),*]
        }
    };
}

calls! {
    0 => plan(PlanRequest),
    1 => start_run(StartRunRequest),
    2 => stop_run(StopRunRequest),
    3 => halt(HaltRequest),
    4 => clear_halt(HaltRequest),
    5 => list_runs(ListRunsRequest),
    6 => get_run(GetRunRequest),
    7 => get_report(GetReportRequest),
    8 => list_hosts(ListHostsRequest),
    9 => label_host(LabelHostRequest),
    10 => forget_host(HostRequest),
    11 => write_off_host(HostRequest),
    12 => get_guard_rails(GetGuardRailsRequest),
    13 => set_guard_rails(SetGuardRailsRequest),
    14 => ask_approval(AskApprovalRequest),
    15 => list_approvals(ListApprovalsRequest),
    16 => get_approval(GetApprovalRequest),
    17 => approve(ApproveRequest),
    18 => reject(RejectRequest),
    19 => withdraw(WithdrawRequest),
    20 => move_host(MoveHostRequest),
    21 => cordon_host(CordonHostRequest),
    22 => uncordon_host(HostRequest),
    23 => make_join_token(MakeJoinTokenRequest),
    24 => set_schedule(SetScheduleRequest),
    25 => list_schedules(ListSchedulesRequest),
    26 => get_schedule(GetScheduleRequest),
    27 => pause_schedule(ScheduleRequest),
    28 => resume_schedule(ScheduleRequest),
    29 => remove_schedule(ScheduleRequest),
    30 => who_am_i(WhoAmIRequest),
    31 => list_people(ListPeopleRequest),
    32 => add_person(AddPersonRequest),
    33 => set_role(SetRoleRequest),
    34 => remove_person(RemovePersonRequest),
    35 => make_access_token(MakeAccessTokenRequest),
    36 => list_access_tokens(ListAccessTokensRequest),
    37 => revoke_access_token(RevokeAccessTokenRequest),
    38 => get_catalogue(GetCatalogueRequest),
}

fn asked<T>(by: &Principal, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.extensions_mut().insert(by.clone());
    request
}

/// The events that come within a second.
async fn watch(api: &Api, by: &Principal, bytes: &[u8]) {
    let Ok(message) = v1::WatchRunRequest::decode(bytes) else { return };
    let Ok(stream) = api.watch_run(asked(by, message)).await else { return };
    let mut stream = stream.into_inner();
    while let Ok(Some(Ok(event))) = tokio::time::timeout(Duration::from_secs(1), stream.next()).await {
        assert!(event.encoded_len() < world::LONGEST);
    }
}

/// Who calls: an administrator, or somebody with some roles in some places.
fn principal(word: u8) -> Principal {
    const ROLES: [Role; 6] = [Role::Viewer, Role::Designer, Role::Runner, Role::Operator, Role::Approver, Role::Admin];
    if word & 0x80 == 0 {
        return Principal::admin();
    }
    let place = if word & 0x40 == 0 { "default" } else { "*" };
    let held = ROLES.into_iter().enumerate().filter(|(bit, _)| word >> bit & 1 == 1);
    let grants = held.map(|(_, role)| Grant { environment: place.to_owned(), role }).collect();
    Principal { id: "p-1".into(), grants: Grants(grants), token: Some("t".into()) }
}

fn service(controller: &Controller) -> Api {
    let (history, fleet) = (controller.history().clone(), controller.fleet().clone());
    let approvals = Approvals::new(history.clone());
    let audit = controller.audit().to_owned();
    let runs = Runs::new(history.clone(), fleet.clone(), audit.clone(), 7).approved_by(approvals.clone());
    let people = People::new(history.clone(), &audit, Directory::default(), &[]);
    let schedules = Schedules::new(history.clone(), runs.clone()).answering_to(people.clone());
    let (notices, feeds) = (controller.notices().clone(), controller.feeds().clone());
    let (audit, gate) = (Audit::new(history.clone(), &audit), world::gate(controller));
    Api::new(Parts { runs, schedules, notices, feeds, history, fleet, audit, people, approvals, gate, keeper: None })
}

/// Parts are calls: who, which, and the message.
fn take(data: &[u8]) {
    world::run(async {
        let controller = world::controller(MemoryStore::new()).await;
        let api = service(&controller);
        for part in world::parts(data).into_iter().take(MOST) {
            let [who, which, bytes @ ..] = part else { continue };
            call(&api, *which, &principal(*who), bytes).await;
        }
        // Whatever was asked, an administrator still gets answers.
        let admin = Principal::admin();
        api.list_hosts(asked(&admin, v1::ListHostsRequest::default())).await.expect("an answer");
        api.list_runs(asked(&admin, v1::ListRunsRequest::default())).await.expect("an answer");
    });
}

fn seeds() -> Vec<Vec<u8>> {
    let small = || world::SMALL.to_owned();
    let plan = v1::PlanRequest { source: small(), source_name: "small.yaml".into(), ..Default::default() };
    let start = v1::StartRunRequest {
        source: small(),
        source_name: "small.yaml".into(),
        idempotency_key: "k".into(),
        ..Default::default()
    };
    let schedule = v1::SetScheduleRequest {
        source: "apiVersion: fracas/v1\nkind: Schedule\nname: often\nexperiment: small.yaml\n\
                 when: { every: { period: 2s, from: 2026-01-01T00:00 } }\n"
            .into(),
        experiment: small(),
        ..Default::default()
    };
    let rails = v1::SetGuardRailsRequest {
        source: "apiVersion: fracas/v1\nkind: GuardRails\nlimits: [{ name: few, maxHosts: 1 }]\n".into(),
        ..Default::default()
    };
    let grant = Some(v1::RoleGrant { role: "operator".into(), environment: "default".into() });
    let person = v1::AddPersonRequest {
        handle: "ann".into(),
        grants: grant.clone().into_iter().collect(),
        ..Default::default()
    };
    let role = v1::SetRoleRequest { person: "ann".into(), grant, take: false };
    let token = v1::MakeAccessTokenRequest { person: "ann".into(), ttl_seconds: 60, note: "n".into() };
    let host = v1::HostRequest { host: "3f2c".into(), reason: "why".into() };
    let label = v1::LabelHostRequest { host: "3f2c".into(), ..Default::default() };
    let join = v1::MakeJoinTokenRequest { ttl_seconds: 60, ..Default::default() };
    let ask = v1::AskApprovalRequest { source: small(), every_run: true, ..Default::default() };
    let named = v1::ScheduleRequest { name: "often".into(), reason: "why".into() };
    let halt = v1::HaltRequest { reason: "why".into() };
    let stories: Vec<Vec<(u8, Vec<u8>)>> = vec![
        vec![
            (0, plan.encode_to_vec()),
            (1, start.encode_to_vec()),
            (39, v1::WatchRunRequest { run: "last".into(), ..Default::default() }.encode_to_vec()),
        ],
        vec![
            (1, start.encode_to_vec()),
            (2, v1::StopRunRequest { run: "last".into(), reason: "why".into() }.encode_to_vec()),
            (7, v1::GetReportRequest { run: "last".into() }.encode_to_vec()),
        ],
        vec![
            (24, schedule.encode_to_vec()),
            (25, vec![]),
            (26, v1::GetScheduleRequest { name: "often".into(), next: 9, facts: 9 }.encode_to_vec()),
            (27, named.encode_to_vec()),
            (28, named.encode_to_vec()),
            (29, named.encode_to_vec()),
        ],
        vec![(13, rails.encode_to_vec()), (12, vec![]), (14, ask.encode_to_vec()), (15, vec![])],
        vec![
            (32, person.encode_to_vec()),
            (33, role.encode_to_vec()),
            (35, token.encode_to_vec()),
            (36, vec![]),
            (31, vec![]),
        ],
        vec![
            (21, v1::CordonHostRequest { host: "3f2c".into(), reason: "why".into(), drain: true }.encode_to_vec()),
            (22, host.encode_to_vec()),
            (9, label.encode_to_vec()),
            (11, host.encode_to_vec()),
            (10, host.encode_to_vec()),
        ],
        vec![
            (3, halt.encode_to_vec()),
            (1, start.encode_to_vec()),
            (4, halt.encode_to_vec()),
            (23, join.encode_to_vec()),
        ],
    ];
    let seed = |who: u8, calls: &[(u8, Vec<u8>)]| {
        let parts: Vec<Vec<u8>> = calls.iter().map(|(which, bytes)| [&[who, *which][..], bytes].concat()).collect();
        world::joined(parts.iter().map(Vec::as_slice))
    };
    let mut all: Vec<Vec<u8>> = stories.iter().flat_map(|story| [seed(0, story), seed(0xbf, story)]).collect();
    all.push(seed(0, &empty()[..MOST]));
    all
}
