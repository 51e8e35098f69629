package platform

import (
	"errors"
	"fmt"
	"slices"

	"manifold"
	"manifold/coordinator/store"
)

// transferRoutes give an app another owner: who has it offers it, and who
// shall have it accepts.
func transferRoutes(a *api) routes {
	return routes{
		"GET /account/app-transfers":               a.transfers,
		"POST /account/app-transfers":              a.offerApp,
		"GET /account/app-transfers/{transfer}":    a.transfer,
		"PATCH /account/app-transfers/{transfer}":  a.decideTransfer,
		"DELETE /account/app-transfers/{transfer}": a.cancelTransfer,
	}
}

// transferObjects shows offers the caller made or got.
func (a *api) transferObjects(c *call) (shown []object, all []manifold.Transfer, err error) {
	all, err = a.Store.Transfers(c.Context(), c.user.ID)
	for _, x := range all {
		o, err := a.transferObject(c, x)
		if err != nil {
			return nil, nil, err
		}
		shown = append(shown, o)
	}
	return shown, all, err
}

func (a *api) transferObject(c *call, x manifold.Transfer) (object, error) {
	app, err := a.Store.App(c.Context(), x.App)
	if err != nil {
		return nil, err
	}
	person := func(id string) (object, error) {
		user, err := a.Store.User(c.Context(), id)
		if errors.Is(err, store.ErrNotFound) {
			user, err = manifold.User{ID: id}, nil
		}
		return object{"id": id, "email": user.Email}, err
	}
	owner, err := person(x.Owner)
	if err != nil {
		return nil, err
	}
	recipient, err := person(x.Recipient)
	return object{
		"id": x.ID, "app": appRef(app), "owner": owner, "recipient": recipient, "state": x.State,
		"created_at": when(x.CreatedAt), "updated_at": when(x.UpdatedAt),
	}, err
}

func (a *api) transfers(c *call) (answer, error) {
	shown, _, err := a.transferObjects(c)
	if err != nil {
		return answer{}, err
	}
	return list(c, shown, func(o object) any { return o }, text("id"))
}

// findTransfer finds an offer the caller made or got, by its id or its app.
func (a *api) findTransfer(c *call) (object, manifold.Transfer, error) {
	shown, all, err := a.transferObjects(c)
	if err != nil {
		return nil, manifold.Transfer{}, err
	}
	name := c.PathValue("transfer")
	i := slices.IndexFunc(shown, func(o object) bool { return name == o["id"] || name == o["app"].(object)["name"] })
	if i < 0 {
		return nil, manifold.Transfer{}, noTransfer
	}
	return shown[i], all[i], nil
}

var noTransfer = notFound("app_transfer", "There is no such transfer of yours that waits. Yours are at GET /account/app-transfers.")

func (a *api) transfer(c *call) (answer, error) {
	shown, _, err := a.findTransfer(c)
	if err != nil {
		return answer{}, err
	}
	return ok(shown)
}

// offerApp is what "heroku apps:transfer" asks for.
func (a *api) offerApp(c *call) (answer, error) {
	var in struct {
		App       string
		Recipient person
	}
	if err := c.body(&in); err != nil {
		return answer{}, err
	}
	if in.App == "" || in.Recipient.name == "" {
		return answer{}, invalidParams("Name the app and the recipient: heroku apps:transfer grace@example.com -a my-app")
	}
	c.SetPathValue("app", in.App)
	return onOwnApp(func(c *call, app manifold.App) (answer, error) {
		to, err := a.Store.User(c.Context(), in.Recipient.name)
		if errors.Is(err, store.ErrNotFound) {
			return answer{}, invalidParams(fmt.Sprintf("There is no user %q on this platform.", clip(in.Recipient.name)))
		}
		if err != nil {
			return answer{}, err
		}
		x, err := a.Store.OfferApp(c.Context(), app.ID, c.user.ID, to.ID)
		if err != nil {
			return answer{}, err
		}
		shown, err := a.transferObject(c, x)
		if err != nil {
			return answer{}, err
		}
		return created(shown)
	})(c)
}

// decideTransfer is the recipient's answer.
func (a *api) decideTransfer(c *call) (answer, error) {
	var in struct{ State string }
	if err := c.body(&in); err != nil {
		return answer{}, err
	}
	_, x, err := a.findTransfer(c)
	if err != nil {
		return answer{}, err
	}
	if in.State != manifold.TransferAccepted && in.State != manifold.TransferDeclined {
		return answer{}, invalidParams("State must be accepted or declined.")
	}
	if x.Recipient != c.user.ID {
		return answer{}, invalidParams("Only who is offered the app can accept or decline it. To take the offer back, DELETE it.")
	}
	if x, err = a.Store.DecideTransfer(c.Context(), x, in.State == manifold.TransferAccepted); err != nil {
		return answer{}, noneWaits(err)
	}
	return a.decided(c, x)
}

// cancelTransfer takes an offer back.
func (a *api) cancelTransfer(c *call) (answer, error) {
	shown, x, err := a.findTransfer(c)
	if err != nil {
		return answer{}, err
	}
	if x.Owner != c.user.ID {
		return answer{}, invalidParams("Only who offers the app can take the offer back. To decline it, PATCH its state to declined.")
	}
	if err := a.Store.CancelTransfer(c.Context(), x); err != nil {
		return answer{}, noneWaits(err)
	}
	c.logChanges(manifold.App{ID: x.App})
	return ok(shown)
}

func (a *api) decided(c *call, x manifold.Transfer) (answer, error) {
	c.logChanges(manifold.App{ID: x.App})
	shown, err := a.transferObject(c, x)
	if err != nil {
		return answer{}, err
	}
	return ok(shown)
}

func noneWaits(err error) error {
	if errors.Is(err, store.ErrNotFound) {
		return noTransfer
	}
	return err
}
