//! The identity provider of the configuration.

use std::fs;

use xdpgate_service::Failure;

use crate::auth::oidc::{Oidc, Settings};
use crate::auth::{Role, Secret};
use crate::config;
use crate::open;

/// Its client; `None` without one. The configuration has been checked.
pub(super) fn of(section: &config::Oidc) -> Result<Option<Oidc>, Failure> {
    let (Some(issuer), Some(client_id), Some(file), Some(redirect_url)) = (
        &section.issuer,
        &section.client_id,
        &section.client_secret_file,
        &section.redirect_url,
    ) else {
        return Ok(None);
    };
    let secret = open::secret(file, "oidc.client_secret_file")?;
    let ca = section.ca.as_ref().map(|path| {
        let read = fs::read(path);
        read.map_err(|e| Failure::input("oidc.ca", format!("{}: {e}", path.display())))
    });
    let groups = |groups: &[String], role| {
        groups
            .iter()
            .map(move |group| (group.clone(), role))
            .collect::<Vec<_>>()
    };
    // Of a group that is named twice the higher role counts.
    let roles = [
        groups(&section.viewers, Role::Viewer),
        groups(&section.operators, Role::Operator),
        groups(&section.admins, Role::Admin),
    ];
    let settings = Settings {
        name: section.name.clone(),
        issuer: issuer.clone(),
        client_id: client_id.clone(),
        client_secret: Secret::from(secret.trim()),
        redirect_url: redirect_url.clone(),
        scopes: section.scopes.clone(),
        user_claim: section.user_claim.clone(),
        role_claim: section.role_claim.clone(),
        roles: roles.into_iter().flatten().collect(),
        ca: ca.transpose()?,
    };
    let oidc = Oidc::new(settings).map_err(|e| Failure::input("oidc", e))?;
    Ok(Some(oidc))
}
