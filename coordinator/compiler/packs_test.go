package compiler

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestWhichBuildpacks(t *testing.T) {
	dir := t.TempDir()
	mine := filepath.Join(dir, "packs", "mine")
	write := func(path, text string, mode os.FileMode) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
	}
	write(filepath.Join(mine, "bin", "detect"), "#!/bin/sh\n", 0o644)
	write(filepath.Join(mine, "lib", "x.sh"), "x", 0o755)
	write(filepath.Join(mine, ".git", "config"), "secret", 0o644)
	write(filepath.Join(dir, "secret"), "secret", 0o600)
	for link, target := range map[string]string{"out": dir, "mine/inner": "lib/x.sh", "mine/escape": "../../secret"} {
		if err := os.Symlink(target, filepath.Join(dir, "packs", link)); err != nil {
			t.Fatal(err)
		}
	}
	local := func(c *Config) { c.Buildpacks = filepath.Join(dir, "packs") }

	r := newRig(t, local)
	r.req.App.Buildpacks = []string{"heroku/nodejs", "https://git.invalid/me/pack.git#v1", "git@git.invalid:me/pack", "file://" + mine, "manifold/go", "static"}
	if _, err := r.build(t); err != nil {
		t.Fatalf("%v\n%s", err, r.out.String())
	}
	in := r.runner.input
	if want := "00 tree heroku/nodejs\n01 url https://git.invalid/me/pack.git#v1\n02 url git@git.invalid:me/pack\n03 tree file://" + mine +
		"\n04 tree manifold/go\n05 tree static\n"; in["packs"] != want {
		t.Errorf("packs:\n%swant:\n%s", in["packs"], want)
	}
	if _, ok := in["chosen"]; !ok {
		t.Error("the app chose its buildpacks")
	}
	if in["buildpacks/03/lib/x.sh"] != "x" || in["buildpacks/03/inner"] != "-> lib/x.sh" || in["buildpacks/03/escape"] != "-> ../../secret" || r.runner.modes["buildpacks/03/bin/detect"] != 0o755 {
		t.Errorf("the local buildpack: %v", slices.Sorted(maps.Keys(in)))
	}
	for name, text := range in {
		if text == "secret" {
			t.Errorf("%s holds what is no buildpack's", name)
		}
	}

	for _, bad := range []string{
		"/etc", dir, filepath.Join(dir, "packs", "..", "secret"), filepath.Join(dir, "packs", "none"), filepath.Join(dir, "packs", "out"), "file:///root",
		"cobol", "heroku/cobol", "ftp://x.invalid/y", "ext::sh -c true", "https://x.invalid/a b", "-x@y:z", "--upload-pack=x@y", "https://x.invalid/\nx", "", "file:relative",
		"https://x.invalid/" + strings.Repeat("x", 3000),
	} {
		r := newRig(t, local)
		r.req.App.Buildpacks = []string{bad}
		if _, err := r.build(t); err == nil {
			t.Errorf("buildpack %.60q was taken: %v", bad, slices.Sorted(maps.Keys(r.runner.input)))
		}
	}
	r = newRig(t, nil)
	r.req.App.Buildpacks = []string{mine}
	if _, err := r.build(t); err == nil {
		t.Error("a local buildpack was taken where the operator set no directory aside")
	}
	r.says(t, "Ask your operator")
	r.req.App.Buildpacks = slices.Repeat([]string{"go"}, MaxBuildpacks+1)
	if _, err := r.build(t); err == nil {
		t.Error("too many buildpacks were taken")
	}
}

func TestPassThrough(t *testing.T) {
	got := PassThrough([]string{
		"GOPROXY=https://proxy.invalid", "https_proxy=http://p:1", "npm_config_registry=https://npm.invalid", "HOME=/root", "PATH=/bin", "GOFLAGS=-x",
		"npm_config_prefix=/usr", "BUNDLE_MIRROR__ALL=https://gems.invalid", "CORP_TOKEN=1", "CORP=2", "NO_PROXY=", "broken",
	}, []string{"CORP_*", "*", ""})
	want := map[string]string{
		"GOPROXY": "https://proxy.invalid", "https_proxy": "http://p:1", "npm_config_registry": "https://npm.invalid",
		"BUNDLE_MIRROR__ALL": "https://gems.invalid", "CORP_TOKEN": "1",
	}
	if !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
