export declare function locked<T>(lock: string, job: () => Promise<T>): Promise<T>;
