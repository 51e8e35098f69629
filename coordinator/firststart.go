package coordinator

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"manifold/coordinator/store"
)

// joinTokenLife is how long the token in the file is good. It lies beside the
// keys of this machine, so it gives nothing away that is not there already.
const joinTokenLife = 30 * 24 * time.Hour

// welcome writes what people and processes on this machine need to begin:
//
//	first-token  the first user's API token, at the first start only
//	join-token   with which agents and routers join; renewed when it expired
//	ca.pem       the CA's certificate; written last, so that it marks a first start that came to its end
func (r *rooms) welcome(ctx context.Context) error {
	if err := r.firstUser(ctx); err != nil {
		return fmt.Errorf("make the first user: %w", err)
	}
	if err := r.keepJoinToken(ctx); err != nil {
		return fmt.Errorf("make a join token: %w", err)
	}
	return writeSecret(r.cfg.dir("ca.pem"), string(r.ca.PEM()))
}

func (r *rooms) firstUser(ctx context.Context) error {
	token, err := r.store.Bootstrap(ctx, r.cfg.Email)
	if err != nil {
		return err
	}
	if token == "" {
		if exists(r.cfg.dir("ca.pem")) || exists(r.cfg.dir("first-token")) {
			return nil
		}
		// We were killed between making the user and writing the token down.
		user, err := r.store.User(ctx, r.cfg.Email)
		if err != nil {
			return err
		}
		if token, err = r.store.CreateToken(ctx, user, "First token", 0); err != nil {
			return err
		}
	}
	return writeSecret(r.cfg.dir("first-token"), token+"\n")
}

func (r *rooms) keepJoinToken(ctx context.Context) error {
	path := r.cfg.dir("join-token")
	text, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	secret, fingerprint, _ := strings.Cut(strings.TrimSpace(string(text)), ".")
	if fingerprint == r.ca.Fingerprint() {
		err := r.store.RedeemJoinToken(ctx, secret)
		if !errors.Is(err, store.ErrUnauthorized) {
			return err
		}
	}
	token, err := r.joinToken(ctx, joinTokenLife)
	if err != nil {
		return err
	}
	return writeSecret(path, token+"\n")
}

// joinToken makes a token as manifold.Join takes it.
func (r *rooms) joinToken(ctx context.Context, life time.Duration) (string, error) {
	secret, err := r.store.CreateJoinToken(ctx, life)
	if err != nil {
		return "", err
	}
	return secret + "." + r.ca.Fingerprint(), nil
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// writeSecret writes a file only its owner may read, whole or not at all.
func writeSecret(path, text string) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*") // mode 0600
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}
