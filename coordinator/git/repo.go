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
// and what making one left behind. It may be called at any time.
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

// inQuarantine adds the pushed objects to what cmd sees. The path came from
// the hook, so it is only accepted where git itself puts it.
func (s *Server) inQuarantine(cmd *exec.Cmd, app, quarantine string) error {
	if quarantine == "" {
		return nil // a push of objects that were all there
	}
	objects := filepath.Join(s.repo(app), "objects")
	quarantine = filepath.Join(objects, filepath.Base(quarantine))
	st, err := os.Lstat(quarantine)
	if err != nil {
		return fmt.Errorf("open the quarantine: %w", err)
	}
	if !quarantineName.MatchString(filepath.Base(quarantine)) || !st.IsDir() {
		return fmt.Errorf("open the quarantine: %w", fs.ErrInvalid)
	}
	cmd.Env = append(cmd.Env, "GIT_OBJECT_DIRECTORY="+quarantine, "GIT_ALTERNATE_OBJECT_DIRECTORIES="+objects)
	return nil
}

// archive writes a commit's files as a tar.
func (s *Server) archive(ctx context.Context, app, quarantine, commit string, w io.Writer) error {
	cmd := s.command(ctx, s.repo(app), "-c", "tar.umask=0022", "archive", "--format=tar", commit)
	if err := s.inQuarantine(cmd, app, quarantine); err != nil {
		return err
	}
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
