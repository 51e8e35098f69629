package git

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

func (s *Server) hooks() string          { return filepath.Join(s.cfg.Dir, "hooks") }
func (s *Server) repo(app string) string { return filepath.Join(s.cfg.Dir, app+".git") }

// prepare makes an app's repository if there is none. It is made under
// another name and moved, so that a half-made one is never served.
func (s *Server) prepare(ctx context.Context, app string) error {
	if _, err := os.Stat(s.repo(app)); err == nil {
		return nil
	}
	s.repos.Lock()
	defer s.repos.Unlock()
	if _, err := os.Stat(s.repo(app)); err == nil {
		return nil
	}
	tmp, err := os.MkdirTemp(s.cfg.Dir, "new-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	if out, err := s.command(ctx, tmp, "init", "--quiet", "--bare", "--template=", "--initial-branch=main", tmp).CombinedOutput(); err != nil {
		return fmt.Errorf("git init: %w: %s", err, out)
	}
	// A deploy is of the whole commit: attributes that keep files out of an
	// archive, or rewrite them in it, are for people who publish archives.
	if err := os.MkdirAll(filepath.Join(tmp, "info"), 0o700); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(tmp, "info", "attributes"), []byte("* -export-ignore -export-subst\n"), 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, s.repo(app))
}

// command is git with our environment and nobody's configuration.
func (s *Server) command(ctx context.Context, dir string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, s.git, args...)
	cmd.Dir = dir
	cmd.Env = s.environment("PATH="+os.Getenv("PATH"), "GIT_DIR="+dir)
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

// Collect removes the repositories of apps that exist (App.ID) does not know,
// and what making one left behind. It may be called at any time if exists looks
// at the present: it is asked after the repositories were listed.
func (s *Server) Collect(exists func(app string) bool) error {
	s.repos.Lock()
	defer s.repos.Unlock()
	entries, err := os.ReadDir(s.cfg.Dir)
	if err != nil {
		return fmt.Errorf("list repositories: %w", err)
	}
	var failed error
	for _, e := range entries {
		app, isRepo := strings.CutSuffix(e.Name(), ".git")
		if isRepo && !exists(app) || strings.HasPrefix(e.Name(), "new-") {
			failed = errors.Join(failed, os.RemoveAll(filepath.Join(s.cfg.Dir, e.Name())))
		}
	}
	return failed
}

// quarantineName is what git names the directory of objects it has not yet
// accepted (git-receive-pack(1), "Quarantine environment").
var quarantineName = regexp.MustCompile(`^(tmp_objdir-)?incoming-[A-Za-z0-9]+$`)

// quarantine checks the directory that a hook names: it must be one that git
// made for this app's pushes. "" is a push of objects that were all there.
func (s *Server) quarantine(app, named string) (string, error) {
	if named == "" {
		return "", nil
	}
	dir := filepath.Join(s.repo(app), "objects", filepath.Base(named))
	st, err := os.Lstat(dir)
	if err != nil {
		return "", fmt.Errorf("open the quarantine: %w", err)
	}
	if !quarantineName.MatchString(filepath.Base(dir)) || !st.IsDir() {
		return "", fmt.Errorf("open the quarantine %q: %w", filepath.Base(dir), fs.ErrInvalid)
	}
	return dir, nil
}

// sweep removes the quarantines of pushes whose git was killed with an earlier
// coordinator. No push may be running.
func (s *Server) sweep() error {
	left, err := filepath.Glob(filepath.Join(s.cfg.Dir, "*.git", "objects", "*incoming-*"))
	for _, dir := range left {
		if quarantineName.MatchString(filepath.Base(dir)) {
			err = errors.Join(err, os.RemoveAll(dir))
		}
	}
	return err
}

// look is command in an app's repository, with the objects of a push that is
// being judged. quarantine came from the method of that name.
func (s *Server) look(ctx context.Context, app, quarantine string, args ...string) *exec.Cmd {
	cmd := s.command(ctx, s.repo(app), args...)
	if quarantine != "" {
		cmd.Env = append(cmd.Env, "GIT_OBJECT_DIRECTORY="+quarantine, "GIT_ALTERNATE_OBJECT_DIRECTORIES="+filepath.Join(s.repo(app), "objects"))
	}
	return cmd
}

// archive writes a commit's files as a tar.
func (s *Server) archive(ctx context.Context, app, quarantine, commit string, w io.Writer) error {
	cmd := s.look(ctx, app, quarantine, "-c", "tar.umask=0022", "archive", "--format=tar", commit)
	stderr := &clipped{}
	cmd.Stdout, cmd.Stderr = w, stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("git archive: %w: %s", err, strings.TrimSpace(stderr.String()))
	}
	return nil
}

// tip is the commit a ref points at, "" for none.
func (s *Server) tip(ctx context.Context, app, ref string) (string, error) {
	out, err := s.command(ctx, s.repo(app), "for-each-ref", "--format=%(objectname)", "--", ref).Output()
	if err != nil {
		return "", fmt.Errorf("git for-each-ref: %w", err)
	}
	return strings.TrimSpace(string(out)), nil
}

// follow makes branch the one that a clone checks out.
func (s *Server) follow(ctx context.Context, app, branch string) error {
	if out, err := s.command(ctx, s.repo(app), "symbolic-ref", "HEAD", branch).CombinedOutput(); err != nil {
		return fmt.Errorf("git symbolic-ref: %w: %s", err, out)
	}
	return nil
}
