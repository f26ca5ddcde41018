-- Whether PostgreSQL answers.

-- name: answers
SELECT 1
