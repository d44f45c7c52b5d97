-- Returns: {version or "", the rules as {name, JSON...}}
return {redis.call('GET', 'rqxx:rules:version') or '', redis.call('HGETALL', 'rqxx:rules')}
