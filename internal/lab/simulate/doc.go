// Package simulate plays months of runs in minutes: the product's own runs and
// functions on a throw-away PostgreSQL, an auth-service that is honest or loses
// living users, and time that passes because every recorded moment is moved back.
// It says how many rows of living users each history cost before a breaker
// refused it, and how many days of honest histories were refused.
package simulate
