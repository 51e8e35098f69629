package test

import (
	"net/http"
	"slices"
	"testing"
	"time"

	heroku "github.com/heroku/heroku-go/v5"

	"manifold/test/platform"
)

// got is a call's answer, which must be no error.
func got[T any](t *testing.T) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// Heroku's own client for Go, as Terraform's provider uses it: what it asks
// for happens, and every answer is what Heroku's schema says.
func TestHerokuGo(t *testing.T) {
	p := running(t)
	h := heroku.NewService(&http.Client{Timeout: time.Minute, Transport: &heroku.Transport{BearerToken: p.Token, Transport: platform.Loopback.Transport}})
	h.URL = "http://" + p.API
	ctx := t.Context()

	account := got[*heroku.Account](t)(h.AccountInfo(ctx))
	app := got[*heroku.App](t)(h.AppCreate(ctx, heroku.AppCreateOpts{}))
	name := app.Name
	t.Cleanup(func() { p.DeleteApp(name) })
	if app.Owner.Email != account.Email {
		t.Errorf("the app's owner is %s, made by %s", app.Owner.Email, account.Email)
	}
	p.Push(t, platform.Sample(t, "hello"), name)
	p.Answers(t, name, "/", "release v3")

	t.Run("config and releases", func(t *testing.T) {
		vars := got[heroku.ConfigVarUpdateResult](t)(h.ConfigVarUpdate(ctx, name, map[string]*string{"COLOUR": heroku.String("green")}))
		if v := vars["COLOUR"]; v == nil || *v != "green" {
			t.Errorf("config vars are %v", vars)
		}
		p.Answers(t, name, "/", "release v4")
		back := got[*heroku.Release](t)(h.ReleaseRollback(ctx, name, heroku.ReleaseRollbackOpts{Release: "v3"}))
		if back.Version != 5 || back.Description != "Rollback to v3" {
			t.Errorf("release %d %q", back.Version, back.Description)
		}
		p.Answers(t, name, "/", "release v5")
		if now := got[heroku.ConfigVarInfoForAppResult](t)(h.ConfigVarInfoForApp(ctx, name)); now["COLOUR"] != nil {
			t.Errorf("after the rollback config vars are %v", now)
		}
		old := got[heroku.ConfigVarInfoForAppReleaseResult](t)(h.ConfigVarInfoForAppRelease(ctx, name, "4"))
		if old["COLOUR"] == nil {
			t.Errorf("v4 had config vars %v", old)
		}
		newest := got[heroku.ReleaseListResult](t)(h.ReleaseList(ctx, name, &heroku.ListRange{Field: "version", Max: 2, Descending: true}))
		if len(newest) != 2 || newest[0].Version != 5 || newest[1].Version != 4 {
			t.Errorf("the two newest releases are %+v", newest)
		}
		release := got[*heroku.Release](t)(h.ReleaseInfo(ctx, name, newest[1].ID))
		if release.Slug == nil {
			t.Fatal("v4 has no slug")
		}
		if slug := got[*heroku.Slug](t)(h.SlugInfo(ctx, name, release.Slug.ID)); slug.ProcessTypes["web"] == "" {
			t.Errorf("the slug's process types are %v", slug.ProcessTypes)
		}
	})
	t.Run("formation and dynos", func(t *testing.T) {
		types := got[heroku.FormationListResult](t)(h.FormationList(ctx, name, nil))
		if len(types) != 2 || types[0].Type != "web" || types[0].Quantity != 1 || types[1].Type != "worker" || types[1].Quantity != 0 {
			t.Errorf("formation %+v", types)
		}
		got[*heroku.Formation](t)(h.FormationUpdate(ctx, name, "web", heroku.FormationUpdateOpts{Quantity: heroku.Int(2)}))
		dynosAnswer(t, p, name, "web.1", "web.2")
		got[*heroku.Formation](t)(h.FormationInfo(ctx, name, "web"))
		before := dynoIDs(t, p, name)
		if _, err := h.DynoRestart(ctx, name, "web.2"); err != nil {
			t.Fatal(err)
		}
		platform.Eventually(t, time.Minute, func() error { return dynosReplaced(t, p, name, before, "web.2") })
		if d := got[*heroku.Dyno](t)(h.DynoInfo(ctx, name, "web.1")); d.ID != before["web.1"] || d.State != "up" {
			t.Errorf("web.1 is %s %s", d.ID, d.State)
		}
		before = dynoIDs(t, p, name)
		if _, err := h.DynoRestartAll(ctx, name); err != nil {
			t.Fatal(err)
		}
		platform.Eventually(t, time.Minute, func() error { return dynosReplaced(t, p, name, before, "web.1", "web.2") })
		var o heroku.FormationBatchUpdateOpts
		o.Updates = append(o.Updates, struct {
			Quantity *int    `json:"quantity,omitempty" url:"quantity,omitempty,key"`
			Size     *string `json:"size,omitempty" url:"size,omitempty,key"`
			Type     string  `json:"type" url:"type,key"`
		}{heroku.Int(1), nil, "web"})
		got[heroku.FormationBatchUpdateResult](t)(h.FormationBatchUpdate(ctx, name, o))
		platform.Eventually(t, time.Minute, func() error { return dynosUp(t, p, name, "web.1") })
		run := got[*heroku.Dyno](t)(h.DynoCreate(ctx, name, heroku.DynoCreateOpts{Command: "echo said by $DYNO"}))
		platform.Eventually(t, time.Minute, func() error { return p.LogContains(t, name, "said by "+run.Name) })
		got[heroku.DynoSizeListResult](t)(h.DynoSizeList(ctx, nil))
		got[*heroku.DynoSize](t)(h.DynoSizeInfo(ctx, "standard-1x"))
	})
	t.Run("domains", func(t *testing.T) {
		host := name + ".example.com"
		d := got[*heroku.Domain](t)(h.DomainCreate(ctx, name, heroku.DomainCreateOpts{Hostname: host}))
		p.Answers(t, host, "/", "Hello")
		got[*heroku.Domain](t)(h.DomainInfo(ctx, name, d.ID))
		got[heroku.DomainListResult](t)(h.DomainList(ctx, name, nil))
		got[*heroku.Domain](t)(h.DomainDelete(ctx, name, host))
	})
	t.Run("people", func(t *testing.T) {
		got[heroku.CollaboratorListResult](t)(h.CollaboratorList(ctx, name, nil))
		made := got[*heroku.OAuthAuthorization](t)(h.OAuthAuthorizationCreate(ctx, heroku.OAuthAuthorizationCreateOpts{
			Description: heroku.String("read only"), Scope: []string{"read"}, ExpiresIn: heroku.Int(3600),
		}))
		if made.AccessToken == nil {
			t.Fatal("no token")
		}
		reader := heroku.NewService(&http.Client{Transport: &heroku.Transport{BearerToken: made.AccessToken.Token, Transport: platform.Loopback.Transport}})
		reader.URL = h.URL
		got[*heroku.App](t)(reader.AppInfo(ctx, name))
		if _, err := reader.AppUpdate(ctx, name, heroku.AppUpdateOpts{Maintenance: heroku.Bool(true)}); err == nil {
			t.Error("a token for reading wrote")
		}
		got[*heroku.OAuthAuthorization](t)(h.OAuthAuthorizationInfo(ctx, made.ID))
		got[heroku.OAuthAuthorizationListResult](t)(h.OAuthAuthorizationList(ctx, nil))
		got[*heroku.OAuthAuthorization](t)(h.OAuthAuthorizationDelete(ctx, made.ID))
		if _, err := reader.AppInfo(ctx, name); err == nil {
			t.Error("a token that was taken back reads")
		}
		got[heroku.KeyListResult](t)(h.KeyList(ctx, nil))
		got[*heroku.RateLimit](t)(h.RateLimitInfo(ctx))
	})
	t.Run("settings", func(t *testing.T) {
		got[heroku.AppFeatureListResult](t)(h.AppFeatureList(ctx, name, nil))
		f := got[*heroku.AppFeature](t)(h.AppFeatureUpdate(ctx, name, "preboot", heroku.AppFeatureUpdateOpts{Enabled: false}))
		if f.Enabled || got[*heroku.AppFeature](t)(h.AppFeatureInfo(ctx, name, "preboot")).Enabled {
			t.Error("preboot is still on")
		}
		got[heroku.AccountFeatureListResult](t)(h.AccountFeatureList(ctx, nil))
		got[heroku.BuildpackInstallationListResult](t)(h.BuildpackInstallationList(ctx, name, nil))
		got[heroku.RegionListResult](t)(h.RegionList(ctx, nil))
		stacks := got[heroku.StackListResult](t)(h.StackList(ctx, nil))
		got[*heroku.Stack](t)(h.StackInfo(ctx, stacks[0].Name))
		got[heroku.AddOnListByAppResult](t)(h.AddOnListByApp(ctx, name, nil))
		if session := got[*heroku.LogSession](t)(h.LogSessionCreate(ctx, name, heroku.LogSessionCreateOpts{Lines: heroku.Int(10)})); session.LogplexURL == "" {
			t.Error("a log session without an address")
		}
	})
	t.Run("drains and webhooks", func(t *testing.T) {
		drain := got[*heroku.LogDrain](t)(h.LogDrainCreate(ctx, name, heroku.LogDrainCreateOpts{URL: "https://logs.example.com/" + name}))
		if all := got[heroku.LogDrainListResult](t)(h.LogDrainList(ctx, name, nil)); len(all) != 1 || all[0].Token != drain.Token {
			t.Errorf("drains %+v", all)
		}
		got[*heroku.LogDrain](t)(h.LogDrainInfo(ctx, name, drain.ID))
		got[*heroku.LogDrain](t)(h.LogDrainDelete(ctx, name, drain.Token))
		hook := got[*heroku.AppWebhookCreateResult](t)(h.AppWebhookCreate(ctx, name, heroku.AppWebhookCreateOpts{
			URL: "https://hooks.invalid/", Level: "sync", Include: []string{"api:app"},
		}))
		got[*heroku.App](t)(h.AppUpdate(ctx, name, heroku.AppUpdateOpts{Maintenance: heroku.Bool(true)}))
		got[*heroku.App](t)(h.AppUpdate(ctx, name, heroku.AppUpdateOpts{Maintenance: heroku.Bool(false)}))
		if told := got[heroku.AppWebhookDeliveryListResult](t)(h.AppWebhookDeliveryList(ctx, name, nil)); len(told) != 2 {
			t.Errorf("deliveries %+v", told)
		}
		got[heroku.AppWebhookEventListResult](t)(h.AppWebhookEventList(ctx, name, nil))
		got[*heroku.AppWebhookUpdateResult](t)(h.AppWebhookUpdate(ctx, name, hook.ID, heroku.AppWebhookUpdateOpts{Level: heroku.String("notify")}))
		got[*heroku.AppWebhookDeleteResult](t)(h.AppWebhookDelete(ctx, name, hook.ID))
	})
	t.Run("another owner", func(t *testing.T) {
		email, _ := someone(t, p)
		got[*heroku.Collaborator](t)(h.CollaboratorCreate(ctx, name, heroku.CollaboratorCreateOpts{User: email}))
		got[*heroku.Collaborator](t)(h.CollaboratorInfo(ctx, name, email))
		got[*heroku.Collaborator](t)(h.CollaboratorDelete(ctx, name, email))
		offer := got[*heroku.AppTransfer](t)(h.AppTransferCreate(ctx, heroku.AppTransferCreateOpts{App: name, Recipient: email}))
		if offer.State != "pending" {
			t.Errorf("offered: %+v", offer)
		}
		got[heroku.AppTransferListResult](t)(h.AppTransferList(ctx, nil))
		got[*heroku.AppTransfer](t)(h.AppTransferInfo(ctx, offer.ID))
		got[*heroku.AppTransfer](t)(h.AppTransferDelete(ctx, offer.ID))
	})
	t.Run("what there is none of", func(t *testing.T) {
		got[heroku.AddOnServiceListResult](t)(h.AddOnServiceList(ctx, nil))
		got[heroku.AddOnListByUserResult](t)(h.AddOnListByUser(ctx, "~", nil))
		got[heroku.PipelineCouplingListResult](t)(h.PipelineCouplingList(ctx, nil))
		got[heroku.TeamListResult](t)(h.TeamList(ctx, nil))
		got[heroku.SpaceListResult](t)(h.SpaceList(ctx, nil))
		got[heroku.CreditListResult](t)(h.CreditList(ctx, nil))
	})
	renamed := got[*heroku.App](t)(h.AppUpdate(ctx, name, heroku.AppUpdateOpts{Name: heroku.String(name + "-b")})).Name
	t.Cleanup(func() { p.DeleteApp(renamed) })
	p.Answers(t, renamed, "/", "Hello")
	apps := got[heroku.AppListResult](t)(h.AppList(ctx, nil))
	if !slices.ContainsFunc(apps, func(a heroku.App) bool { return a.Name == renamed }) {
		t.Errorf("the app is not among %d", len(apps))
	}
	got[*heroku.App](t)(h.AppDelete(ctx, renamed))
	if _, err := h.AppInfo(ctx, renamed); err == nil {
		t.Error("the app is still there")
	}
}
