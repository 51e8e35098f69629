package platform

import (
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"manifold"
	"manifold/coordinator/scheduler"
	"manifold/coordinator/store"
)

// Every JSON object the API shows is made here. The CLI and the typed clients
// crash on a missing key sooner than on a null, so that every key of the
// published schema is present, null where we have nothing to say.
type object = map[string]any

// when shows a time as the API does: RFC 3339, UTC, whole seconds.
func when(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05Z") }

// whenever is when, or null for a time that never was.
func whenever(t time.Time) any {
	if t.IsZero() {
		return nil
	}
	return when(t)
}

// fixedID gives things that are named, not numbered, an id that never changes.
func fixedID(kind, name string) string {
	return uuid.NewSHA1(uuid.NameSpaceOID, []byte("manifold/"+kind+"/"+name)).String()
}

func named(kind, name string) object { return object{"id": fixedID(kind, name), "name": name} }

func appRef(app manifold.App) object { return object{"id": app.ID, "name": app.Name} }

func accountObject(u manifold.User) object {
	return object{
		"id": u.ID, "email": u.Email, "name": nil,
		"allow_tracking": false, "beta": false, "federated": false, "verified": true,
		"two_factor_authentication": false, "country_of_residence": nil, "default_organization": nil,
		"default_team": nil, "delinquent_at": nil, "identity_provider": nil, "last_login": nil,
		"sms_number": nil, "suspended_at": nil,
		"created_at": when(u.CreatedAt), "updated_at": when(u.CreatedAt),
	}
}

// appObject shows an app. slug is the code it runs, if any.
func (a *api) appObject(app manifold.App, owner manifold.User, slug *manifold.Slug) object {
	var description, size any
	if slug != nil {
		description, size = slug.Language, slug.Image.Bytes
	}
	return object{
		"id": app.ID, "name": app.Name,
		"acm": false, "archived_at": nil, "buildpack_provided_description": description,
		"build_stack": named("stack", app.BuildStack), "stack": named("stack", app.Stack),
		"create_status": "complete", // shown by the CLI, though no schema has it
		"git_url":       a.GitURL(app.Name), "web_url": a.WebURL(app.Name),
		"internal_routing": nil, "maintenance": app.Maintenance,
		"organization": nil, "space": nil, "team": nil,
		"owner":     object{"id": owner.ID, "email": owner.Email},
		"region":    named("region", regionName),
		"repo_size": nil, "slug_size": size,
		"created_at": when(app.CreatedAt), "updated_at": when(app.UpdatedAt), "released_at": whenever(app.ReleasedAt),
	}
}

func stackObject(s Stack, isDefault bool) object {
	return object{
		"id": fixedID("stack", s.Name), "name": s.Name, "default": isDefault, "state": "public",
		"created_at": when(s.BuiltAt), "updated_at": when(s.BuiltAt),
	}
}

func sizeObject(s manifold.Size) object {
	return object{
		"id": fixedID("dyno-size", s.Name), "name": s.Name, "compute": s.Shares,
		"memory": float64(s.Memory) / (1 << 30), "cost": nil, "dedicated": false,
		"dyno_units": 0, "private_space_only": false,
	}
}

func formationObject(app manifold.App, f manifold.Formation, command string) object {
	return object{
		"id": f.ID, "app": appRef(app), "type": f.Type, "quantity": f.Quantity, "size": f.Size,
		"command": command, "created_at": when(f.CreatedAt), "updated_at": when(f.UpdatedAt),
	}
}

// dynoObject shows a dyno. release is the id of the release it runs.
func dynoObject(app manifold.App, d scheduler.Dyno, release string) object {
	return object{
		"id": d.Assignment, "app": appRef(app), "name": d.Name, "type": d.Type, "command": d.Command,
		"size": d.Size, "state": d.State.Shown(), "attach_url": nil,
		"release":    object{"id": release, "version": d.Release},
		"created_at": when(d.CreatedAt), "updated_at": when(d.Since),
	}
}

// releaseObject shows a release; current is the version that runs. Releases
// keep their maker's email only, as it was then.
func (c *call) releaseObject(app manifold.App, r manifold.Release, current int) object {
	var slug any
	if r.Slug != "" {
		slug = object{"id": r.Slug}
	}
	var output any
	if r.Output != "" {
		output = c.url("/outputs/" + r.Output)
	}
	maker := c.user.ID
	if r.User != c.user.Email {
		maker = fixedID("user", r.User)
	}
	return object{
		"id": r.ID, "app": appRef(app), "version": r.Version, "description": r.Description,
		"status": r.Status, "current": r.Version == current, "eligible_for_rollback": eligible(r),
		"slug": slug, "user": object{"id": maker, "email": r.User},
		"addon_plan_names": []string{}, "output_stream_url": output,
		"created_at": when(r.CreatedAt), "updated_at": when(r.CreatedAt),
	}
}

func slugObject(s manifold.Slug) object {
	processes := s.ProcessTypes
	if processes == nil {
		processes = map[string]string{}
	}
	return object{
		"id": s.ID, "buildpack_provided_description": s.Language,
		"checksum": "SHA256:" + strings.TrimPrefix(s.Image.Digest, "sha256:"),
		"commit":   s.Commit, "commit_description": nil, "process_types": processes,
		"size": s.Image.Bytes, "stack": named("stack", s.Stack),
		"blob":       object{"method": "get", "url": ""}, // slugs are for agents, who fetch them elsewhere
		"created_at": when(s.CreatedAt), "updated_at": when(s.CreatedAt),
	}
}

func buildpackObjects(app manifold.App) []object {
	all := make([]object, len(app.Buildpacks))
	for i, url := range app.Buildpacks {
		all[i] = object{"ordinal": i, "buildpack": object{"url": url, "name": url}}
	}
	return all
}

// domainObject shows a domain; target is what its DNS entry should point at,
// nil if it has one by itself.
func domainObject(app manifold.App, d manifold.Domain, kind string, target any) object {
	return object{
		"id": d.ID, "app": appRef(app), "hostname": d.Hostname, "kind": kind,
		"cname": target, "status": "none", "acm_status": nil, "acm_status_reason": nil, "sni_endpoint": nil,
		"created_at": when(d.CreatedAt), "updated_at": when(d.CreatedAt),
	}
}

func featureObject(app manifold.App, f manifold.Feature) object {
	return object{
		"id": fixedID("feature", f.Name), "name": f.Name, "display_name": f.Name, "description": f.Description,
		"enabled": app.Feature(f.Name), "state": "general", "doc_url": "", "feedback_email": "",
		"created_at": when(app.CreatedAt), "updated_at": when(app.UpdatedAt),
	}
}

func drainObject(d manifold.Drain) object {
	return object{
		"id": d.ID, "url": d.URL, "token": d.Token, "addon": nil,
		"created_at": when(d.CreatedAt), "updated_at": when(d.UpdatedAt),
	}
}

func collaboratorObject(app manifold.App, user manifold.User, role string, since time.Time) object {
	return object{
		"id": fixedID("collaborator", app.ID+"/"+user.ID), "app": appRef(app), "role": role,
		"user":        object{"id": user.ID, "email": user.Email, "federated": false},
		"permissions": []object{},
		"created_at":  when(since), "updated_at": when(since),
	}
}

// authorizationObject shows an API token; token is it, where it was just made,
// else the hint its owner knows it by.
func authorizationObject(u manifold.User, x store.Authorization, token string) object {
	var expires any
	if !x.ExpiresAt.IsZero() {
		expires = int(time.Until(x.ExpiresAt).Round(time.Second) / time.Second)
	}
	return object{
		"id": x.ID, "description": x.Description, "scope": x.Scope,
		"access_token": object{"id": x.ID, "token": token, "expires_in": expires},
		"client":       nil, "grant": nil, "refresh_token": nil,
		"user":       object{"id": u.ID, "email": u.Email, "full_name": nil},
		"created_at": when(x.CreatedAt), "updated_at": when(x.UpdatedAt),
	}
}

func keyObject(u manifold.User, k store.Key) object {
	return object{
		"id": k.ID, "email": u.Email, "public_key": k.Public, "fingerprint": k.Fingerprint, "comment": k.Comment,
		"created_at": when(k.CreatedAt), "updated_at": when(k.CreatedAt),
	}
}

func auditObject(e store.Entry) object {
	return object{
		"seq": e.Seq, "created_at": when(e.At), "user": object{"email": e.User}, "action": e.Action,
		"from": e.From, "request_id": e.Request, "authorization": object{"id": e.Authorization},
	}
}

// releaseName shows a version as people write it.
func releaseName(version int) string { return "v" + strconv.Itoa(version) }
