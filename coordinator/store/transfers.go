package store

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/google/uuid"

	"manifold"
)

func transferKey(app string) string { return key("transfers", app) }

// OfferApp offers an app to another user. One that is offered already, or that
// is not owner's (User.ID) any more, is a *manifold.InvalidError.
func (s *Store) OfferApp(ctx context.Context, id, owner, recipient string) (offer manifold.Transfer, err error) {
	err = s.transact(ctx, id, func(t *tx) error {
		app, err := t.app(id)
		if err != nil {
			return err
		}
		var was manifold.Transfer
		if _, err := t.get(transferKey(id), &was); err != nil {
			return err
		}
		email, err := t.emailOf(recipient)
		switch {
		case err != nil:
			return err
		case email == "":
			return fmt.Errorf("user %s: %w", clip(recipient), ErrNotFound)
		case app.Owner != owner || recipient == owner:
			return &manifold.InvalidError{What: "App", Why: "can be offered by its owner, to somebody else"}
		case was.State == manifold.TransferPending:
			return &manifold.InvalidError{What: "App", Why: "is offered to somebody already: cancel that first"}
		}
		now := s.stamp()
		offer = manifold.Transfer{
			ID: uuid.NewString(), App: id, Owner: owner, Recipient: recipient, State: manifold.TransferPending, CreatedAt: now, UpdatedAt: now,
		}
		t.note(id, "Offer the app to %s", email)
		return t.put(transferKey(id), offer)
	})
	return offer, err
}

// Transfers lists the offers a user made or got, oldest first.
func (s *Store) Transfers(ctx context.Context, user string) ([]manifold.Transfer, error) {
	all, err := list[manifold.Transfer](ctx, s.engine, transferKey(""))
	all = slices.DeleteFunc(all, func(x manifold.Transfer) bool { return x.Owner != user && x.Recipient != user })
	slices.SortFunc(all, func(a, b manifold.Transfer) int {
		return cmp.Or(a.CreatedAt.Compare(b.CreatedAt), cmp.Compare(a.ID, b.ID))
	})
	return all, err
}

// transfer reads an offer that waits for its recipient.
func (t *tx) transfer(offer manifold.Transfer) (manifold.Transfer, error) {
	var now manifold.Transfer
	found, err := t.get(transferKey(offer.App), &now)
	if err == nil && (!found || now.ID != offer.ID || now.State != manifold.TransferPending) {
		err = fmt.Errorf("pending transfer %s: %w", clip(offer.ID), ErrNotFound)
	}
	return now, err
}

// DecideTransfer makes the recipient of a pending offer the app's owner, who
// becomes a collaborator, or declines it. ErrNotFound: it does not wait any
// more.
func (s *Store) DecideTransfer(ctx context.Context, offer manifold.Transfer, accept bool) (manifold.Transfer, error) {
	err := s.transact(ctx, offer.App, func(t *tx) (err error) {
		if offer, err = t.transfer(offer); err != nil {
			return err
		}
		offer.State, offer.UpdatedAt = manifold.TransferDeclined, s.stamp()
		if !accept {
			t.note(offer.App, "Decline the transfer")
			return t.put(transferKey(offer.App), offer)
		}
		offer.State = manifold.TransferAccepted
		if err := t.put(transferKey(offer.App), offer); err != nil {
			return err
		}
		_, err = s.updateApp(t, offer.App, func(app *manifold.App) error {
			if app.Owner != offer.Owner {
				return fmt.Errorf("pending transfer %s: %w", clip(offer.ID), ErrNotFound)
			}
			hand(app, offer.Recipient)
			app.Collaborators = append(app.Collaborators, manifold.Collaborator{User: offer.Owner, AddedAt: offer.UpdatedAt})
			return nil
		})
		return err
	})
	return offer, err
}

// hand gives an app another owner.
func hand(app *manifold.App, owner string) {
	app.Owner = owner
	app.Collaborators = slices.DeleteFunc(app.Collaborators, func(c manifold.Collaborator) bool { return c.User == owner })
}

// CancelTransfer takes a pending offer back. ErrNotFound is as in
// DecideTransfer.
func (s *Store) CancelTransfer(ctx context.Context, offer manifold.Transfer) error {
	return s.transact(ctx, offer.App, func(t *tx) error {
		if _, err := t.transfer(offer); err != nil {
			return err
		}
		t.note(offer.App, "Cancel the transfer")
		t.remove(transferKey(offer.App))
		return nil
	})
}
