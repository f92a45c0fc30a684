//! The routes, by what they are about.

pub(super) mod audit;
pub(super) mod authority;
pub(super) mod changes;
pub(super) mod drops;
pub(super) mod evaluate;
pub(super) mod feeds;
pub(super) mod groups;
pub(super) mod import;
pub(super) mod join_tokens;
pub(super) mod live;
pub(super) mod login;
pub(super) mod lookup;
pub(super) mod meta;
pub(super) mod mode;
pub(super) mod nodes;
pub(super) mod policies;
pub(super) mod rollouts;
pub(super) mod rules;
pub(super) mod session;
pub(super) mod sessions;
pub(super) mod sets;
pub(super) mod stats;
pub(super) mod tokens;
pub(super) mod users;

use utoipa::OpenApi;
use utoipa::openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{App, access};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "xdpgate controller",
        description = "What a fleet of xdpgate nodes shall enforce. Changes take If-Match (an ETag of an answer), Idempotency-Key, \
                       `why` and `dry_run`; refusals are application/problem+json (RFC 9457) with `code`, `field` and `mend`.",
    ),
    modifiers(&Security),
    security(("token" = []), ("session" = [])),
)]
struct Api;

struct Security;

impl utoipa::Modify for Security {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let components = document.components.get_or_insert_default();
        let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build();
        components.add_security_scheme("token", SecurityScheme::Http(bearer));
        let cookie = ApiKey::Cookie(ApiKeyValue::new(access::COOKIE));
        components.add_security_scheme("session", SecurityScheme::ApiKey(cookie));
    }
}

/// All of them, with their documentation.
pub(super) fn all() -> OpenApiRouter<App> {
    OpenApiRouter::with_openapi(Api::openapi())
        .routes(routes!(meta::document))
        .routes(routes!(meta::health))
        .routes(routes!(meta::ready))
        .routes(routes!(meta::metrics))
        .routes(routes!(session::login, session::me, session::logout))
        .routes(routes!(session::password))
        .routes(routes!(sessions::own))
        .routes(routes!(sessions::end))
        .routes(routes!(login::methods))
        .routes(routes!(login::start))
        .routes(routes!(login::callback))
        .routes(routes!(users::list, users::create))
        .routes(routes!(users::get, users::patch, users::remove))
        .routes(routes!(sessions::of_user, users::end_sessions))
        .routes(routes!(users::reset_password))
        .routes(routes!(tokens::list, tokens::create))
        .routes(routes!(tokens::remove))
        .routes(routes!(policies::list, policies::create))
        .routes(routes!(
            policies::get,
            policies::put,
            policies::patch_policy,
            policies::remove
        ))
        .routes(routes!(policies::text))
        .routes(routes!(policies::versions))
        .routes(routes!(policies::diff))
        .routes(routes!(policies::revert))
        .routes(routes!(policies::plan))
        .routes(routes!(rollouts::release))
        .routes(routes!(rollouts::list, rollouts::start))
        .routes(routes!(rollouts::preview))
        .routes(routes!(rollouts::get))
        .routes(routes!(rollouts::pause))
        .routes(routes!(rollouts::resume))
        .routes(routes!(rollouts::abort))
        .routes(routes!(rollouts::plans))
        .routes(routes!(
            rollouts::plan,
            rollouts::put_plan,
            rollouts::remove_plan
        ))
        .routes(routes!(rules::list, rules::create))
        .routes(routes!(rules::batch))
        .routes(routes!(rules::get, rules::put, rules::patch, rules::remove))
        .routes(routes!(rules::blame))
        .routes(routes!(sets::list, sets::create))
        .routes(routes!(sets::get, sets::patch, sets::remove))
        .routes(routes!(sets::entries, sets::add, import::import))
        .routes(routes!(sets::take))
        .routes(routes!(sets::versions))
        .routes(routes!(sets::diff))
        .routes(routes!(sets::revert))
        .routes(routes!(groups::list, groups::create))
        .routes(routes!(groups::get, groups::put, groups::remove))
        .routes(routes!(feeds::list, feeds::create))
        .routes(routes!(feeds::get, feeds::put, feeds::remove))
        .routes(routes!(feeds::run))
        .routes(routes!(feeds::accept))
        .routes(routes!(meta::controllers))
        .routes(routes!(nodes::list))
        .routes(routes!(nodes::get, nodes::patch, nodes::remove))
        .routes(routes!(nodes::sync))
        .routes(routes!(nodes::revoke))
        .routes(routes!(nodes::policy))
        .routes(routes!(nodes::counters))
        .routes(routes!(nodes::sync_all))
        .routes(routes!(join_tokens::list, join_tokens::create))
        .routes(routes!(join_tokens::remove))
        .routes(routes!(authority::list))
        .routes(routes!(authority::rotate))
        .routes(routes!(authority::retire))
        .routes(routes!(stats::overview))
        .routes(routes!(stats::history))
        .routes(routes!(stats::group))
        .routes(routes!(changes::revision))
        .routes(routes!(changes::policy))
        .routes(routes!(lookup::lookup))
        .routes(routes!(evaluate::evaluate))
        .routes(routes!(mode::get, mode::put))
        .routes(routes!(audit::list))
        .routes(routes!(live::events))
        .routes(routes!(drops::live))
        .routes(routes!(drops::capture))
}
